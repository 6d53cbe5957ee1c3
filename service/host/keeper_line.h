// The broker's line to its keeper, on the loop: sockets are handed over as
// they are made, the keeper's question whether the loop still turns is
// answered, and a keeper that goes away is noticed once. Without a keeper every
// call does nothing.
#ifndef ZCBROKER_SERVICE_HOST_KEEPER_LINE_H_
#define ZCBROKER_SERVICE_HOST_KEEPER_LINE_H_

#include <memory>
#include <string>

#include "absl/types/optional.h"
#include "asio/io_context.hpp"
#include "ipc/keeper_channel.h"

namespace zcbroker::service {

// Lives on the loop's thread.
class KeeperLine {
 public:
  static std::unique_ptr<KeeperLine> Create(
      asio::io_context& loop, absl::optional<ipc::KeeperChannel> channel);
  virtual ~KeeperLine() = default;

  // `fd` listens at `path`; it stays the caller's.
  virtual void Hold(const std::string& path, int fd) = 0;
  virtual void Drop(const std::string& path) = 0;
  virtual void Ready() = 0;
  // The last call: has the keeper start another broker, and lets go of it.
  virtual void HandedOver() = 0;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_KEEPER_LINE_H_
