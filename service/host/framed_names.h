// The names under which unmodified framed v1 clients look for a broker:
// symbolic links to our socket (spec broker-v1 sections 3.2 and 3.3).
#ifndef ZCBROKER_SERVICE_HOST_FRAMED_NAMES_H_
#define ZCBROKER_SERVICE_HOST_FRAMED_NAMES_H_

#include <set>
#include <string>
#include <vector>

#include "ipc/endpoint.h"
#include "proto/zcbroker/v1/admin.pb.h"

namespace zcbroker::service {

// Links that lead to our socket. Move-only; Remove takes away those that still
// do.
class FramedNames {
 public:
  // Publishes the shared broker's name for clients with XDG_RUNTIME_DIR set
  // to `xdg_runtime_dir` (empty: not set) and for those without it. A name at
  // which another broker answers is left alone. What could not be published is
  // a problem, never an error: our own clients do not need these names.
  FramedNames(const ipc::Endpoint& socket, const std::string& xdg_runtime_dir);
  FramedNames(FramedNames&&) = default;

  void Remove() const;
  // Publishes again what is gone; what has become somebody else's is left
  // alone.
  void Restore();

  // Is this the path of a name that is published, or would be?
  bool IsOne(const std::string& path) const;
  // Where they are.
  std::set<std::string> directories() const;

  const std::vector<std::string>& published() const { return published_; }
  const std::vector<v1::Problem>& problems() const { return problems_; }

 private:
  void Publish(const ipc::Endpoint& name);

  const std::string socket_;
  std::vector<ipc::Endpoint> names_;
  std::vector<std::string> published_;
  std::vector<v1::Problem> problems_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_FRAMED_NAMES_H_
