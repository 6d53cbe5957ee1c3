// What a program may expect of its start, held against the start that the
// released launcher has (bazel test --config=release). Without it, the same is
// expected of libc's own.
#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>

#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#ifdef ZCB_QUICK_START
extern "C" long __x86_shared_non_temporal_threshold;
#endif

namespace {

int made_before_main = 0;
const int kMade = ++made_before_main;
thread_local int of_this_thread = 7;

uint64_t FrameGuard() {
  uint64_t guard = 0;
#ifdef __x86_64__
  __asm__("movq %%fs:0x28, %0" : "=r"(guard));
#endif
  return guard;
}

#ifdef ZCB_QUICK_START
TEST(QuickStartTest, IsInUse) {
  EXPECT_EQ(__x86_shared_non_temporal_threshold, 1024 * 1024 * 3 / 4);
}
#endif

TEST(QuickStartTest, WhatComesBeforeMainHasRunOnce) {
  EXPECT_EQ(made_before_main, 1);
  EXPECT_EQ(kMade, 1);
}

TEST(QuickStartTest, TheEnvironmentAndTheKernelsWordAreThere) {
  EXPECT_NE(environ, nullptr);
  EXPECT_EQ(setenv("ZCB_START", "x", 1), 0);
  EXPECT_STREQ(getenv("ZCB_START"), "x");
  EXPECT_EQ(getauxval(AT_PAGESZ), static_cast<unsigned long>(getpagesize()));
  EXPECT_NE(program_invocation_name, nullptr);
}

// At every size at which an implementation changes its ways, and around it.
TEST(QuickStartTest, BytesAreMovedAtAllSizes) {
  for (const size_t around :
       {16, 32, 64, 128, 256, 2048, 4096, 8 * 4096, 16 * 4096, 786432, 1048576,
        3 << 20, 16 * 786432, 40 << 20}) {
    for (const size_t size : {around - 1, around, around + 1}) {
      std::vector<unsigned char> from(size + 64);
      std::iota(from.begin(), from.end(), 1);
      std::vector<unsigned char> to(size + 64, 0);
      memcpy(to.data() + 3, from.data() + 5, size);
      ASSERT_EQ(memcmp(to.data() + 3, from.data() + 5, size), 0) << size;
      ASSERT_EQ(to[2], 0) << size;
      ASSERT_EQ(to[size + 3], 0) << size;
      std::vector<unsigned char> shifted = from;
      memmove(shifted.data() + 9, shifted.data(), size);
      ASSERT_EQ(memcmp(shifted.data() + 9, from.data(), size), 0) << size;
      memmove(shifted.data(), shifted.data() + 9, size);
      ASSERT_EQ(memcmp(shifted.data(), from.data(), size), 0) << size;
      memset(to.data(), 'x', size);
      to[size] = 0;
      const char* text = reinterpret_cast<const char*>(to.data());
      ASSERT_EQ(strlen(text), size);
      ASSERT_EQ(strchr(text, 'y'), nullptr) << size;
      ASSERT_EQ(strrchr(text, 'x'), text + size - 1) << size;
    }
  }
}

TEST(QuickStartTest, ThreadsHaveTheirOwn) {
  of_this_thread = 8;
  std::thread([] { EXPECT_EQ(of_this_thread, 7); }).join();
  EXPECT_EQ(of_this_thread, 8);
  errno = 0;
  EXPECT_EQ(close(-1), -1);
  EXPECT_EQ(errno, EBADF);
}

TEST(QuickStartTest, ExceptionsAreCaught) {
  EXPECT_THROW(static_cast<void>(std::string("x").at(5)), std::out_of_range);
}

// Another one in every process, and with a zero byte, at which strings end.
TEST(QuickStartTest, StackFramesAreGuarded) {
#ifdef __x86_64__
  EXPECT_NE(FrameGuard(), 0u);
  EXPECT_EQ(FrameGuard() & 0xff, 0u);
#endif
}

TEST(QuickStartTest, WhatWasRegisteredRunsAtTheEnd) {
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    static int out;
    out = pipe_ends[1];
    atexit([] { (void)!write(out, "bye", 3); });
    exit(5);
  }
  close(pipe_ends[1]);
  char said[8] = {};
  EXPECT_EQ(read(pipe_ends[0], said, sizeof(said)), 3);
  EXPECT_STREQ(said, "bye");
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 5);
  close(pipe_ends[0]);
}

}  // namespace
