// Text of anybody's (a backend's log, a user's file) made fit for a proto's
// string and for a terminal.
#ifndef ZCBROKER_IPC_ESCAPE_H_
#define ZCBROKER_IPC_ESCAPE_H_

#include <string>

#include "absl/strings/string_view.h"

namespace zcbroker::ipc {

// `bytes` as UTF-8 without control characters: their bytes are written \xNN,
// and so is every byte over 127 where the whole is not UTF-8. A string field
// with other bytes makes the message that holds it unreadable.
std::string Escape(absl::string_view bytes);
// The same of each part between two `kept`, a control character that is not
// escaped: the ends of lines, or tabs.
std::string EscapeAllBut(char kept, absl::string_view bytes);

}  // namespace zcbroker::ipc

#endif  // ZCBROKER_IPC_ESCAPE_H_
