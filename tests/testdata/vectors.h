// Reads the JSON files of this folder. A file that is missing or no JSON ends
// the test program: there is nothing to test then.
#ifndef ZCBROKER_TESTS_TESTDATA_VECTORS_H_
#define ZCBROKER_TESTS_TESTDATA_VECTORS_H_

#include <string>

#include "google/protobuf/struct.pb.h"

namespace zcbroker::testing {

// `file` is a name in this folder; the test has it in its `data`.
google::protobuf::Value ReadVectors(const std::string& file);

// A member of a JSON object; a null value if there is none.
const google::protobuf::Value& Member(const google::protobuf::Value& object,
                                      const std::string& name);
bool HasMember(const google::protobuf::Value& object, const std::string& name);
const std::string& Text(const google::protobuf::Value& object,
                        const std::string& name);

// The bytes of a member that holds hex digits.
std::string Bytes(const google::protobuf::Value& object,
                  const std::string& name = "hex");

}  // namespace zcbroker::testing

#endif  // ZCBROKER_TESTS_TESTDATA_VECTORS_H_
