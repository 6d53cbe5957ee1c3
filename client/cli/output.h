// What every verb prints with: JSON or words, and errors with what to do.
#ifndef ZCBROKER_CLIENT_CLI_OUTPUT_H_
#define ZCBROKER_CLIENT_CLI_OUTPUT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "proto/zcbroker/v1/admin.pb.h"

namespace zcbroker::cli {

enum class Format { kText, kJson };

// Counts changes of what `--json` prints that a program which reads it would
// not survive; fields that are added are none.
inline constexpr int kJsonSchema = 1;

// `message` as one JSON object and a newline, to standard output: first
// "schema", the message's name and kJsonSchema, then its fields, named as in
// its .proto, defaults included.
void PrintJson(const google::protobuf::Message& message);

// "zcbroker up", with what root has to add.
std::string UpCommand();

// The failure in the chosen format: words to standard error, or an ErrorReport
// to standard output. Returns the exit status for it: a refusal's own, else
// kExitNoBroker where no broker could be asked, else kExitFailure.
int PrintFailure(Format format, const absl::Status& status);

// "3.1 ms", "0.214 ms", "1.20 s".
std::string Spell(absl::Duration duration);

// "backend ready", "draining", "VERSION_NOT_INSTALLED".
std::string KindName(v1::EventKind kind);
const char* StateName(v1::BackendState state);
std::string RefusalName(v1::Refusal refusal);

// The counter of that name, or those of that family together.
uint64_t CountOf(const v1::GetStatusResponse& status, absl::string_view name);

}  // namespace zcbroker::cli

#endif  // ZCBROKER_CLIENT_CLI_OUTPUT_H_
