// The least that any launcher takes: connects, sends a request that was
// recorded, waits for the first bytes of the reply and exits. No library, not
// even C's, since starting one is most of what a small program takes; no
// checks, and nothing is found out about the call. The yardstick for zcb.
//
// usage: bare_exchange SOCKET REQUEST-FILE
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

namespace {

char buffer[1 << 16];

long Call(long number, long a = 0, long b = 0, long c = 0) {
  long result = 0;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c)
                   : "rcx", "r11", "memory");
  return result;
}

long Address(const void* at) { return reinterpret_cast<long>(at); }

int Exchange(const char* path, const char* file) {
  const long request = Call(SYS_open, Address(file));
  const long size = Call(SYS_read, request, Address(buffer), sizeof(buffer));
  sockaddr_un address;
  address.sun_family = AF_UNIX;
  for (int i = 0; (address.sun_path[i] = path[i]) != '\0'; ++i) {
  }
  const long fd = Call(SYS_socket, AF_UNIX, SOCK_STREAM);
  if (Call(SYS_connect, fd, Address(&address), sizeof(address)) != 0) return 1;
  Call(SYS_write, fd, Address(buffer), size);
  return Call(SYS_read, fd, Address(buffer), sizeof(buffer)) > 0 ? 0 : 1;
}

}  // namespace

// `stack`: the number of arguments, then the arguments.
extern "C" [[gnu::used]] void Start(const long* stack) {
  const auto arguments = reinterpret_cast<const char* const*>(stack + 1);
  const int status = stack[0] == 3 ? Exchange(arguments[1], arguments[2]) : 2;
  Call(SYS_exit_group, status);
}

__asm__(
    ".globl _start\n"
    "_start:\n"
    "  mov %rsp, %rdi\n"
    "  and $-16, %rsp\n"
    "  call Start\n");
