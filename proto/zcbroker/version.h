// The version of everything built from this tree.
#ifndef ZCBROKER_PROTO_ZCBROKER_VERSION_H_
#define ZCBROKER_PROTO_ZCBROKER_VERSION_H_

namespace zcbroker {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace zcbroker

#endif  // ZCBROKER_PROTO_ZCBROKER_VERSION_H_
