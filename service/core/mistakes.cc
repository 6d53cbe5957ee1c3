#include "service/core/mistakes.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/escape.h"

namespace zcbroker::service {

using google::protobuf::TextFormat;

MistakeList::MistakeList(absl::string_view file,
                         std::vector<v1::Problem>* problems)
    : file_(ipc::Escape(file)), problems_(problems) {}

void MistakeList::AddError(int line, int column, const std::string& message) {
  v1::Problem problem;
  // The tokenizer counts from zero, people and editors from one.
  problem.set_where(absl::StrCat(file_, ":", line + 1, ":", column + 1));
  problem.set_what(ipc::Escape(message));
  problems_->push_back(std::move(problem));
}

void MistakeList::AddAt(const TextFormat::ParseInfoTree* tree,
                        const google::protobuf::Message& message,
                        const char* field, int index, const std::string& what) {
  TextFormat::ParseLocation location;
  if (tree != nullptr) {
    location = tree->GetLocation(
        message.GetDescriptor()->FindFieldByName(field), index);
  }
  AddError(std::max(location.line, 0), std::max(location.column, 0), what);
}

bool ParseText(absl::string_view text, google::protobuf::Message* message,
               TextFormat::ParseInfoTree* tree, MistakeList* mistakes) {
  if (text.size() > kMaxTextBytes) {
    mistakes->AddError(0, 0, "larger than 1 MiB");
    return false;
  }
  TextFormat::Parser parser;
  parser.RecordErrorsTo(mistakes);
  parser.WriteLocationsTo(tree);
  parser.SetRecursionLimit(16);
  return parser.ParseFromString(std::string(text), message);
}

}  // namespace zcbroker::service
