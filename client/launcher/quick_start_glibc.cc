// What glibc's own start of a static program does, without asking the
// processor what it can do.
//
// glibc 2.36 executes about fifty CPUID instructions before main, most of them
// to learn the sizes of caches. A virtual machine traps each: 0.46 ms of every
// process, measured where a whole hit of ours takes 1.05 ms. zcb is over before
// the best memcpy would have paid for the search, so it takes the one that
// every x86-64 has. docs/adr/0013 has the measurements and what to do when a
// glibc to come changes underneath; a mismatch does not link.
//
// Linked into the static release only (BUILD.bazel). It takes the place of
// libc-start.o, whole: every symbol of that object is here.
#include <elf.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#if !defined(__x86_64__) || !defined(__GLIBC__) || __GLIBC__ != 2 || \
    __GLIBC_MINOR__ != 36
#error "written for glibc 2.36 on x86-64: see docs/adr/0013"
#endif

// glibc's, private to static programs.
extern "C" {
using Initializer = void (*)(int, char**, char**);
using Finalizer = void (*)();

extern char** __environ;
extern void* __libc_stack_end;
extern void* _dl_random;
extern int __libc_enable_secure;
extern const Elf64_Rela __rela_iplt_start[];
extern const Elf64_Rela __rela_iplt_end[];
extern const Initializer __preinit_array_start[];
extern const Initializer __preinit_array_end[];
extern const Initializer __init_array_start[];
extern const Initializer __init_array_end[];
extern const Finalizer __fini_array_start[];
extern const Finalizer __fini_array_end[];

void _dl_aux_init(Elf64_auxv_t* auxv);
void __tunables_init(char** environment);
void _dl_relocate_static_pie();
void __libc_setup_tls();
void __libc_early_init(bool initial);
void __libc_init_first(int argc, char** argv, char** environment);
void __libc_check_standard_fds();
void* _dl_debug_initialize(Elf64_Addr base, long link_namespace);
int __cxa_atexit(void (*function)(void*), void* argument, void* module);
void _init();
void _fini();

// What the search would have set, and the plain memcpy reads: sizes at which it
// changes its ways. glibc's own defaults for a processor it does not know; the
// copy past the cache begins at three quarters of the shared one.
long __x86_data_cache_size = 32 * 1024;
long __x86_data_cache_size_half = 32 * 1024 / 2;
long __x86_shared_cache_size = 1024 * 1024;
long __x86_shared_cache_size_half = 1024 * 1024 / 2;
long __x86_shared_non_temporal_threshold = 1024 * 1024 * 3 / 4;
long __x86_rep_movsb_threshold = 2048;
long __x86_rep_stosb_threshold = 2048;
long __x86_rep_movsb_stop_threshold = 1024 * 1024 * 3 / 4;
int __x86_string_control = 0;
}

namespace {

void RunFinalizers(void*) {
  for (size_t i = __fini_array_end - __fini_array_start; i-- > 0;) {
    __fini_array_start[i]();
  }
  _fini();
}

}  // namespace

// Before the guards of the stack are set no function of ours may check them,
// and before the relocations none of libc's that has several forms may run.
extern "C" [[noreturn]] __attribute__((no_stack_protector)) int
__libc_start_main(int (*main)(int, char**, char**), int argc, char** argv,
                  void (*)(), void (*)(), Finalizer, void* stack_end) {
  char** const environment = argv + argc + 1;
  __environ = environment;
  __libc_stack_end = stack_end;
  char** after = environment;
  while (*after != nullptr) ++after;
  _dl_aux_init(reinterpret_cast<Elf64_auxv_t*>(after + 1));
  __tunables_init(environment);

  // Nothing is known of the processor: each resolver takes what all have.
  _dl_relocate_static_pie();
  for (const Elf64_Rela* r = __rela_iplt_start; r < __rela_iplt_end; ++r) {
    const auto resolve = reinterpret_cast<Elf64_Addr (*)()>(r->r_addend);
    *reinterpret_cast<Elf64_Addr*>(r->r_offset) = resolve();
  }
  __libc_setup_tls();

  // The kernel's 16 random bytes: the first eight against writes past the end
  // of a stack frame, with a zero byte against strings; the others against
  // writes to stored code addresses.
  const auto* random = static_cast<const uint64_t*>(_dl_random);
  const uint64_t frame_guard = random[0] & ~uint64_t{0xff};
  const uint64_t pointer_guard = random[1];
  __asm__ volatile("movq %0, %%fs:0x28" : : "r"(frame_guard));
  __asm__ volatile("movq %0, %%fs:0x30" : : "r"(pointer_guard));

  __libc_early_init(true);
  __libc_init_first(argc, argv, environment);
  __cxa_atexit(RunFinalizers, nullptr, nullptr);
  if (__libc_enable_secure != 0) __libc_check_standard_fds();
  for (const Initializer* i = __preinit_array_start; i < __preinit_array_end;
       ++i) {
    (*i)(argc, argv, environment);
  }
  _init();
  for (const Initializer* i = __init_array_start; i < __init_array_end; ++i) {
    (*i)(argc, argv, environment);
  }
  _dl_debug_initialize(0, 0);
  exit(main(argc, argv, environment));
}
