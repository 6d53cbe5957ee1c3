#include "service/host/readiness.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>

#include "asio/io_context.hpp"
#include "asio/posix/stream_descriptor.hpp"
#include "gtest/gtest.h"

namespace zcbroker::service {
namespace {

using Descriptor = asio::posix::stream_descriptor;

// A pipe whose ends close with it.
class Pipe {
 public:
  Pipe() { EXPECT_EQ(pipe2(ends_.data(), O_CLOEXEC | O_NONBLOCK), 0); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() { close(ends_[1]); }
  void Write() const { EXPECT_EQ(write(ends_[1], "x", 1), 1); }
  // Whoever asks closes it.
  int reader() const { return ends_[0]; }

 private:
  std::array<int, 2> ends_{};
};

TEST(ReadinessTest, WhatAnotherDescriptorHadIsNotTakenForItsOwn) {
  asio::io_context loop(1);
  const Pipe one;
  const Pipe other;
  const Pipe quiet;
  Descriptor first(loop, one.reader());
  Descriptor second(loop, other.reader());
  Descriptor third(loop);
  one.Write();
  other.Write();
  bool plainly = false;
  int ready = 0;
  // Both are ready, and told together. Whichever handler comes first closes the
  // other descriptor; the next one is given its place.
  const auto replace = [&](Descriptor& closed) {
    if (third.is_open()) return;
    closed.close();
    third.assign(quiet.reader());
    third.async_wait(Descriptor::wait_read,
                     [&](const asio::error_code&) { plainly = true; });
    WhenReady(third, Descriptor::wait_read,
              [&](const asio::error_code&) { ++ready; });
  };
  first.async_wait(Descriptor::wait_read, [&](const asio::error_code& error) {
    if (!error) replace(second);
  });
  second.async_wait(Descriptor::wait_read, [&](const asio::error_code& error) {
    if (!error) replace(first);
  });
  loop.poll();
  EXPECT_TRUE(plainly) << "asio has mended this: WhenReady is not needed";
  EXPECT_EQ(ready, 0);
  quiet.Write();
  loop.restart();
  loop.run();
  EXPECT_EQ(ready, 1);
}

TEST(ReadinessTest, AnErrorIsPassedOn) {
  asio::io_context loop(1);
  const Pipe quiet;
  Descriptor descriptor(loop, quiet.reader());
  asio::error_code seen;
  WhenReady(descriptor, Descriptor::wait_read,
            [&](const asio::error_code& error) { seen = error; });
  descriptor.cancel();
  loop.run();
  EXPECT_EQ(seen, asio::error::operation_aborted);
}

}  // namespace
}  // namespace zcbroker::service
