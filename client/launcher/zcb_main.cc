// zcb: the compiler launcher. docs/zcb.md.
#include <unistd.h>

#include <cstddef>
#include <cstring>

#include "client/launcher/launcher.h"
#include "proto/zcbroker/version.h"

namespace {

constexpr char kUsage[] =
    "usage: zcb COMPILER [ARGUMENT...]\n"
    "       zcb --help | --version\n"
    "\n"
    "Compiles through a running cache daemon that a broker knows, or else by\n"
    "the compiler itself; the result is the same. A symbolic link to it that\n"
    "is named like a compiler stands for that compiler further down in PATH.\n"
    "\n"
    "  CMAKE_C_COMPILER_LAUNCHER=zcb, RUSTC_WRAPPER=zcb\n"
    "  ZCBROKER_VERSION=1.11.22   this version of the daemon only\n"
    "  ZCCACHE_DISABLE=1          always the compiler itself\n"
    "\n"
    "Why a call went to the compiler: zcbroker explain. More: docs/zcb.md.\n";

int Print(const char* text) {
  const std::size_t size = std::strlen(text);
  return write(STDOUT_FILENO, text, size) == static_cast<ssize_t>(size) ? 0 : 1;
}

// Nothing is buffered, so nothing is lost by leaving at once.
[[noreturn]] void Launch(char** words) {
  _exit(zcbroker::client::Launch(words));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 1) return 127;
  const char* slash = std::strrchr(argv[0], '/');
  const char* name = slash == nullptr ? argv[0] : slash + 1;
  // "zcb-0.1" is a zcb, too.
  if (std::strncmp(name, "zcb", 3) != 0 ||
      (name[3] != '\0' && name[3] != '-')) {
    // The name is the compiler's; the path is ours.
    argv[0] = const_cast<char*>(name);
    Launch(argv);
  }
  if (argc < 2) {
    (void)!write(STDERR_FILENO, kUsage, sizeof(kUsage) - 1);
    return 2;
  }
  if (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0) {
    return Print(kUsage);
  }
  if (std::strcmp(argv[1], "--version") == 0) {
    return Print("zcb ") | Print(zcbroker::kVersion) | Print("\n");
  }
  Launch(argv + 1);
}
