// Being told what appears or changes in a directory, instead of looking.
#ifndef ZCBROKER_SERVICE_HOST_DIRECTORY_WATCH_H_
#define ZCBROKER_SERVICE_HOST_DIRECTORY_WATCH_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "asio/io_context.hpp"

namespace zcbroker::service {

// Lives on the loop's thread; destroying it ends the watch.
class DirectoryWatch {
 public:
  // `changed` is called on the loop with the entry's name whenever one is
  // created, moved here, written and closed, or removed; with "" when events
  // were lost. Errors: by errno, kResourceExhausted for want of watches.
  static absl::StatusOr<std::unique_ptr<DirectoryWatch>> Create(
      asio::io_context& loop, const std::string& directory,
      std::function<void(const std::string& name)> changed);

  virtual ~DirectoryWatch() = default;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_DIRECTORY_WATCH_H_
