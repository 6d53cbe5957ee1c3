// Propagation of absl::Status; the packaged Abseil has no such macros.
//
//   ZCB_RETURN_IF_ERROR(Write(fd, bytes));
//   ZCB_ASSIGN_OR_RETURN(UniqueFd fd, Connect(endpoint, deadline));
#ifndef ZCBROKER_IPC_STATUS_MACROS_H_
#define ZCBROKER_IPC_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace zcbroker::ipc {

// The same status with one clause of context in front of its message:
// "bind /run/user/1000/x.sock: permission denied". Payloads are kept.
inline absl::Status Annotate(const absl::Status& status,
                             absl::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(),
                         absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) {
    annotated.SetPayload(type, payload);
  });
  return annotated;
}

}  // namespace zcbroker::ipc

#define ZCB_RETURN_IF_ERROR(expression)      \
  do {                                       \
    absl::Status zcb_status = (expression);  \
    if (!zcb_status.ok()) return zcb_status; \
  } while (false)

#define ZCB_STATUS_CONCAT_INNER(a, b) a##b
#define ZCB_STATUS_CONCAT(a, b) ZCB_STATUS_CONCAT_INNER(a, b)
#define ZCB_ASSIGN_OR_RETURN(target, expression)                \
  auto ZCB_STATUS_CONCAT(zcb_result_, __LINE__) = (expression); \
  if (!ZCB_STATUS_CONCAT(zcb_result_, __LINE__).ok())           \
    return ZCB_STATUS_CONCAT(zcb_result_, __LINE__).status();   \
  target = std::move(*ZCB_STATUS_CONCAT(zcb_result_, __LINE__))

#endif  // ZCBROKER_IPC_STATUS_MACROS_H_
