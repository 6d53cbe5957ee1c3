// The version of everything built from this tree.
#ifndef ZCBROKER_SERVICE_VERSION_H_
#define ZCBROKER_SERVICE_VERSION_H_

namespace zcbroker::service {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_VERSION_H_
