// Whether bytes are well-formed UTF-8, by the rule both peers use: no overlong
// forms, no surrogates, nothing above U+10FFFF. Thread-safe.
#ifndef ZCBROKER_IPC_WIRE_UTF8_H_
#define ZCBROKER_IPC_WIRE_UTF8_H_

#include "absl/strings/string_view.h"

namespace zcbroker::ipc {

bool IsUtf8(absl::string_view text);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_WIRE_UTF8_H_
