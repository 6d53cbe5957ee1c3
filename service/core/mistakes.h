// Mistakes in protobuf text that a person wrote, each with its place.
#ifndef ZCBROKER_SERVICE_CORE_MISTAKES_H_
#define ZCBROKER_SERVICE_CORE_MISTAKES_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "proto/zcbroker/v1/admin.pb.h"

namespace zcbroker::service {

// The largest text that is read; nobody writes one by hand that long.
constexpr size_t kMaxTextBytes = 1 << 20;

// Collects problems whose `where` is "<file>:<line>:<column>".
class MistakeList : public google::protobuf::io::ErrorCollector {
 public:
  // `problems` outlives it.
  MistakeList(absl::string_view file, std::vector<v1::Problem>* problems);

  // `line` and `column` count from zero.
  void AddError(int line, int column, const std::string& message) override;

  // At the field of this name, the `index`-th of it (-1: not repeated), of
  // `message`, whose places are in `tree` (none: the first line).
  void AddAt(const google::protobuf::TextFormat::ParseInfoTree* tree,
             const google::protobuf::Message& message, const char* field,
             int index, const std::string& what);

 private:
  const std::string file_;
  std::vector<v1::Problem>* const problems_;
};

// Reads `text` into `message`; `tree` gets the places. False with at least one
// mistake.
bool ParseText(absl::string_view text, google::protobuf::Message* message,
               google::protobuf::TextFormat::ParseInfoTree* tree,
               MistakeList* mistakes);

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_CORE_MISTAKES_H_
