#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

#include "ipc/spare_memory.h"

namespace zcbroker::ipc {

void GiveBackCodePages() {
  dl_iterate_phdr(
      [](dl_phdr_info* object, size_t, void*) {
        const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
        for (int i = 0; i < object->dlpi_phnum; ++i) {
          const ElfW(Phdr)& segment = object->dlpi_phdr[i];
          // What was written to would be lost; this was not.
          if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) {
            continue;
          }
          const uintptr_t begin =
              (object->dlpi_addr + segment.p_vaddr) & ~(page - 1);
          const uintptr_t end =
              object->dlpi_addr + segment.p_vaddr + segment.p_memsz;
          // The loader gives addresses as numbers.
          // NOLINTNEXTLINE(performance-no-int-to-ptr)
          madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
        }
        return 0;
      },
      nullptr);
}

void GiveBackFreedMemory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

}  // namespace zcbroker::ipc
