// What this process has read of route infos, so that a program which connects
// often does not read the same file again and again: where the file is still
// the one that was read, which one system call tells, so is its meaning.
//
// Reading an info takes some 25 system calls, since every directory on the way
// is opened and checked; the direct lane it competes with takes two. What was
// checked once stays ours: only this user may change what is in there.
#ifndef ZCBROKER_CLIENT_ROUTE_MEMORY_H_
#define ZCBROKER_CLIENT_ROUTE_MEMORY_H_

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/types/optional.h"
#include "client/named_route.h"
#include "ipc/file_stamp.h"

namespace zcbroker::client {

// Thread-safe, and safe in a child that was forked at any time: whoever finds
// it locked goes on without. Holds kMaxRoutes at most, then starts over.
class RouteMemory {
 public:
  static constexpr std::size_t kMaxRoutes = 64;

  // One for the process: connections are made by functions, which have no
  // other place to remember in.
  static RouteMemory& OfThisProcess();

  // What was put there, if its file is unchanged; else nullptr. The key is
  // made of everything the meaning of an info depends on, but the mount
  // namespace, which the stamp is about.
  std::shared_ptr<const UsableRoute> Find(const std::string& key);
  // `stamp` is that of the file at `path`, taken before it was read; nothing is
  // kept where the file has another by now.
  void Put(const std::string& key, const std::string& path,
           const absl::optional<ipc::FileStamp>& stamp,
           std::shared_ptr<const UsableRoute> route);

 private:
  struct Known {
    std::string path;
    ipc::FileStamp stamp;
    std::shared_ptr<const UsableRoute> route;
  };
  std::mutex mutex_;
  std::map<std::string, Known> known_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace zcbroker::client

#endif  // ZCBROKER_CLIENT_ROUTE_MEMORY_H_
