#include "ipc/socket.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ipc/status_macros.h"

namespace zcbroker::ipc {

absl::StatusOr<std::string> ReadExactly(const UniqueFd& fd, std::size_t size,
                                        Deadline deadline) {
  std::string bytes(size, '\0');
  std::size_t have = 0;
  while (have < size) {
    const bool last_look = deadline.Expired();
    ZCB_ASSIGN_OR_RETURN(const std::size_t n,
                         ReadSome(fd, &bytes[have], size - have, deadline));
    if (n == 0 && have == 0) {
      return absl::OutOfRangeError("the peer closed the connection");
    }
    if (n == 0) {
      return absl::DataLossError(
          absl::StrCat("the peer closed the connection after ", have, " of ",
                       size, " bytes"));
    }
    have += n;
    if (last_look && have < size) {
      return absl::DeadlineExceededError(
          absl::StrCat("only ", have, " of ", size, " bytes came in time"));
    }
  }
  return bytes;
}

}  // namespace zcbroker::ipc
