// Being told what appears or changes in a directory, instead of looking.
#ifndef ZCBROKER_SERVICE_HOST_DIRECTORY_WATCH_H_
#define ZCBROKER_SERVICE_HOST_DIRECTORY_WATCH_H_

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "asio/io_context.hpp"

namespace zcbroker::service {

// Lives on the loop's thread; destroying it ends the watch.
class DirectoryWatch {
 public:
  // `changed` is called on the loop with the entry's name whenever one is
  // created, moved here, written and closed (with `writes`), or removed; with
  // "" when events were lost, or the directory is gone or moved. Of one that
  // somebody holds open the end is not told, only that of what is in it.
  // Errors: by errno, kResourceExhausted for want of watches.
  static absl::StatusOr<std::unique_ptr<DirectoryWatch>> Create(
      asio::io_context& loop, const std::string& directory, bool writes,
      std::function<void(const std::string& name)> changed);

  // The same for several at once, for the price of one. A directory that cannot
  // be watched is passed over. kResourceExhausted for want of watches.
  static absl::StatusOr<std::unique_ptr<DirectoryWatch>> CreateForAll(
      asio::io_context& loop, const std::set<std::string>& directories,
      bool writes, std::function<void(const std::string& name)> changed);

  virtual ~DirectoryWatch() = default;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_DIRECTORY_WATCH_H_
