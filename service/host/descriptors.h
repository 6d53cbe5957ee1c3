// The broker's descriptors, and the reserve that only its own socket may use:
// the soft limit is kept below the hard one, so the system itself refuses
// everything else a descriptor of the reserve. It is lent to whoever has to be
// told that there are none (FrontDoor).
#ifndef ZCBROKER_SERVICE_HOST_DESCRIPTORS_H_
#define ZCBROKER_SERVICE_HOST_DESCRIPTORS_H_

#include <sys/resource.h>

#include <cstddef>

namespace zcbroker::service {

// docs/operations.md, "Limits". A quarter of the hard limit where that is less.
inline constexpr size_t kDescriptorReserve = 32;

// A start of a backend takes a log, watches, a pidfd and some connections; a
// gRPC server about as many. Neither is begun without room for so many.
inline constexpr size_t kDescriptorsOfStart = 16;

// Raises the soft limit on open descriptors to the hard one less the reserve.
// Called once, before anything is spawned: what it spawns later gets the limit
// back that this process was started with (OriginalDescriptorLimit).
void RaiseDescriptorLimit();

// What it was before; nullptr: RaiseDescriptorLimit was not called.
const rlimit* OriginalDescriptorLimit();

// Could so many more be opened now, without the reserve? Two system calls each,
// so not for every request. Thread-safe.
bool RoomForDescriptors(size_t count);

// Is this descriptor of the reserve? Not within a DescriptorLoan. Thread-safe.
bool IsOfReserve(int fd);

// While it lives, the calling thread may open descriptors of the reserve; for
// so long others of the process may, too. One at a time; it does not nest.
class DescriptorLoan {
 public:
  DescriptorLoan();
  ~DescriptorLoan();
  DescriptorLoan(const DescriptorLoan&) = delete;
  DescriptorLoan& operator=(const DescriptorLoan&) = delete;

 private:
  rlimit before_;
};

}  // namespace zcbroker::service

#endif  // ZCBROKER_SERVICE_HOST_DESCRIPTORS_H_
