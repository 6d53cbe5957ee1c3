// The requests of one connection, over the three wire lanes.
// Source: spec zccache-ipc 2.8, 3.3 and 3.4.
#ifndef ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_REQUESTS_H_
#define ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_REQUESTS_H_

#include <functional>

#include "client/backend_sdk/managed_backend.h"
#include "client/backend_sdk/reference/backend.h"

namespace zcbroker::client {

// Has `backend` answer them until the connection ends, or says what cannot be
// answered. Calls `shut_down` once a Shutdown is answered. Thread-safe.
void AnswerRequests(BackendConnection& connection, ReferenceBackend& backend,
                    const std::function<void()>& shut_down);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_BACKEND_SDK_REFERENCE_REQUESTS_H_
