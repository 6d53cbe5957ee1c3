#include "service/host/awake_loop.h"

#include <sys/resource.h>

#include <chrono>
#include <cstdint>
#include <thread>

#include "asio/executor_work_guard.hpp"
#include "asio/io_context.hpp"
#include "asio/post.hpp"
#include "asio/steady_timer.hpp"
#include "gtest/gtest.h"

namespace zcbroker::service {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

int64_t Sleeps() {
  rusage used;
  getrusage(RUSAGE_THREAD, &used);
  return used.ru_nvcsw;
}

TEST(AwakeLoopTest, EndsWhenNothingIsLeft) {
  asio::io_context loop;
  int handled = 0;
  asio::post(loop, [&] {
    ++handled;
    asio::post(loop, [&] { ++handled; });
  });
  RunAwake(loop);
  EXPECT_EQ(handled, 2);
}

TEST(AwakeLoopTest, EndsWhenStoppedByAnotherThread) {
  asio::io_context loop;
  const auto work = asio::make_work_guard(loop);
  std::thread other([&] { loop.stop(); });
  RunAwake(loop);
  other.join();
  EXPECT_TRUE(loop.stopped());
}

TEST(AwakeLoopTest, StopsInTheMiddleOfWork) {
  asio::io_context loop;
  int handled = 0;
  for (int i = 0; i < 5; ++i) {
    asio::post(loop, [&] {
      if (++handled == 3) loop.stop();
    });
  }
  RunAwake(loop);
  EXPECT_EQ(handled, 3);
}

// Nothing happens for far longer than it stays awake: it must be asleep.
TEST(AwakeLoopTest, SleepsWhenNothingComes) {
  asio::io_context loop;
  asio::steady_timer timer(loop, milliseconds(100));
  timer.async_wait([](const asio::error_code&) {});
  const int64_t before = Sleeps();
  RunAwake(loop, microseconds(100));
  EXPECT_GE(Sleeps() - before, 1);
}

}  // namespace
}  // namespace zcbroker::service
