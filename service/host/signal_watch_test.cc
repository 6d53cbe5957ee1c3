#include "service/host/signal_watch.h"

#include <signal.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "asio/io_context.hpp"
#include "gtest/gtest.h"

namespace zcbroker::service {
namespace {

TEST(SignalWatchTest, EachWatchIsToldItsOwn) {
  asio::io_context loop;
  std::vector<int> first;
  std::vector<int> second;
  const auto note = [&](std::vector<int>& seen, int received) {
    seen.push_back(received);
    if (first.size() + second.size() == 2) loop.stop();
  };
  const SignalWatch one(loop, {SIGUSR1}, [&](int s) { note(first, s); });
  const SignalWatch two(loop, {SIGUSR2}, [&](int s) { note(second, s); });
  kill(getpid(), SIGUSR2);
  kill(getpid(), SIGUSR1);
  loop.run();
  EXPECT_EQ(first, std::vector<int>{SIGUSR1});
  EXPECT_EQ(second, std::vector<int>{SIGUSR2});
}

// A thread that a library started must not be the one that gets it.
TEST(SignalWatchTest, AThreadThatIsStartedLaterTakesNone) {
  asio::io_context loop;
  int received = 0;
  const SignalWatch watch(loop, {SIGUSR1}, [&](int s) {
    received = s;
    loop.stop();
  });
  std::thread([] {
    sigset_t blocked;
    pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
    EXPECT_EQ(sigismember(&blocked, SIGUSR1), 1);
    // To this very thread: it leaves it pending, and would die of it else.
    raise(SIGUSR1);
  }).join();
  kill(getpid(), SIGUSR1);
  loop.run();
  EXPECT_EQ(received, SIGUSR1);
}

TEST(SignalWatchTest, WhatTheParentIgnoredArrives) {
  signal(SIGUSR1, SIG_IGN);
  asio::io_context loop;
  int received = 0;
  const SignalWatch watch(loop, {SIGUSR1}, [&](int s) {
    received = s;
    loop.stop();
  });
  kill(getpid(), SIGUSR1);
  loop.run();
  EXPECT_EQ(received, SIGUSR1);
}

}  // namespace
}  // namespace zcbroker::service
