// Fallbacks are never silent: each leaves a record that `zcbroker explain`
// shows. `zcbroker/fallbacks` in the runtime directory holds records of 64
// bytes, each appended with one write, so any number of processes append at
// once and none waits. At 1 MiB it becomes `fallbacks.1`, replacing that.
//
//   0  1 byte 0xFB, 1 byte 1, 1 byte origin, 1 byte FallbackReason
//   4  pid, parent's pid, session: 4 bytes each
//  16  wall clock, microseconds since 1970: 8 bytes
//  24  since boot, microseconds: 8 bytes
//  32  service 8, version 12, program 12 bytes of printable ASCII, NULs after,
//      cut where they are longer
//
// in the byte order of the machine, which the file never leaves.
#ifndef ZCBROKER_CLIENT_FALLBACK_RECORDS_H_
#define ZCBROKER_CLIENT_FALLBACK_RECORDS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/fallback.h"
#include "ipc/environment.h"
#include "ipc/runtime_dir.h"

namespace zcbroker::client {

inline constexpr std::size_t kFallbackRecordBytes = 64;
inline constexpr std::size_t kMaxFallbackFileBytes = std::size_t{1} << 20;

enum class FallbackOrigin : std::uint8_t { kLibrary = 0, kLauncher = 1 };

struct FallbackRecord {
  FallbackOrigin origin = FallbackOrigin::kLibrary;
  FallbackReason reason = FallbackReason::kBrokerMissing;
  std::uint32_t pid = 0;
  std::uint32_t parent = 0;
  std::uint32_t session = 0;
  absl::Time wall;            // of whole microseconds
  absl::Duration since_boot;  // of whole microseconds
  std::string service;        // the first 8 bytes
  std::string version;        // the first 12
  std::string program;        // the first 8 of the process's name
};

// Exactly kFallbackRecordBytes. What is not printable ASCII becomes '?'.
std::string EncodeFallbackRecord(const FallbackRecord& record);
// Nothing where the bytes are no record.
absl::optional<FallbackRecord> DecodeFallbackRecord(absl::string_view bytes);

// Leaves a record of this process, now, in the runtime directory that
// `environment` leads to. Where there is none, or the file cannot be written,
// nothing happens: a fallback must not fail because it is noted. Takes some 20
// microseconds. Thread-safe.
void RecordFallback(const ipc::EnvironmentLookup& environment,
                    FallbackOrigin origin, FallbackReason reason,
                    absl::string_view service, absl::string_view version);

// The same with the directory at hand. Errors, for tests: kFailedPrecondition
// (the name is a link, no regular file or another user's), others by errno.
absl::Status AppendFallbackRecord(const ipc::RuntimeDir& dir,
                                  FallbackOrigin origin, FallbackReason reason,
                                  absl::string_view service,
                                  absl::string_view version);

// All there are, the oldest first; bytes that are no record are passed over.
// Errors: as above; a file that is not there is no error.
absl::StatusOr<std::vector<FallbackRecord>> ReadFallbackRecords(
    const ipc::RuntimeDir& dir);

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_FALLBACK_RECORDS_H_
