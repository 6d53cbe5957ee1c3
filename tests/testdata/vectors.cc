#include "tests/testdata/vectors.h"

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>

#include "absl/strings/escaping.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"

namespace zcbroker::testing {

using google::protobuf::Value;

Value ReadVectors(const std::string& file) {
  std::ifstream stream("tests/testdata/" + file);
  std::stringstream text;
  text << stream.rdbuf();
  Value value;
  const auto status =
      google::protobuf::util::JsonStringToMessage(text.str(), &value);
  if (!stream || !status.ok()) {
    std::cerr << "cannot read tests/testdata/" << file << ": "
              << status.ToString() << "\n";
    std::abort();
  }
  return value;
}

const Value& Member(const Value& object, const std::string& name) {
  static const Value* const kNull = new Value();
  const auto& fields = object.struct_value().fields();
  const auto found = fields.find(name);
  return found == fields.end() ? *kNull : found->second;
}

bool HasMember(const Value& object, const std::string& name) {
  return object.struct_value().fields().count(name) != 0;
}

const std::string& Text(const Value& object, const std::string& name) {
  return Member(object, name).string_value();
}

std::string Bytes(const Value& object, const std::string& name) {
  return absl::HexStringToBytes(Text(object, name));
}

}  // namespace zcbroker::testing
