#include "service/host/descriptors.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <vector>

#include "absl/types/optional.h"
#include "ipc/unique_fd.h"

namespace zcbroker::service {
namespace {

absl::optional<rlimit> original_limit;

}  // namespace

void RaiseDescriptorLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  original_limit = limit;
  limit.rlim_cur =
      limit.rlim_max - std::min<rlim_t>(kDescriptorReserve, limit.rlim_max / 4);
  setrlimit(RLIMIT_NOFILE, &limit);
}

const rlimit* OriginalDescriptorLimit() {
  return original_limit.has_value() ? &*original_limit : nullptr;
}

bool RoomForDescriptors(size_t count) {
  std::vector<ipc::UniqueFd> taken;
  for (size_t i = 0; i < count; ++i) {
    ipc::UniqueFd fd(eventfd(0, EFD_CLOEXEC));
    if (!fd) return false;
    taken.push_back(std::move(fd));
  }
  return true;
}

bool IsOfReserve(int fd) {
  rlimit limit;
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
         static_cast<rlim_t>(fd) >= limit.rlim_cur;
}

DescriptorLoan::DescriptorLoan() {
  getrlimit(RLIMIT_NOFILE, &before_);
  rlimit raised = before_;
  raised.rlim_cur =
      std::min<rlim_t>(raised.rlim_max, raised.rlim_cur + kDescriptorReserve);
  setrlimit(RLIMIT_NOFILE, &raised);
}

DescriptorLoan::~DescriptorLoan() { setrlimit(RLIMIT_NOFILE, &before_); }

}  // namespace zcbroker::service
