#include "ipc/breaker.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "ipc/runtime_dir.h"
#include "ipc/testing/scoped_runtime_dir.h"

namespace zcbroker::ipc {
namespace {

using Verdict = BreakerVerdict;

constexpr absl::Duration kStart = absl::Hours(1);

class BreakerTest : public testing::Test {
 protected:
  BreakerTest() : dir_(*RuntimeDir::OpenOrCreate(scoped_.inputs())) { Bind(); }

  // Another socket at the broker's name, as after a restart without a keeper.
  void Bind() {
    absl::StatusOr<Listener> broker =
        Listener::Bind(*Endpoint::Parse(dir_.broker_socket()));
    ASSERT_TRUE(broker.ok()) << broker.status();
    listeners_.push_back(*std::move(broker));
  }
  Breaker New() { return Breaker(dir_, dir_.broker_socket()); }
  Verdict Look(absl::Duration now) { return New().Look(now); }
  void Trip(absl::Duration now) {
    Breaker breaker = New();
    breaker.Look(now);
    breaker.Trip(now);
  }
  std::string file() const { return dir_.Entry("breaker"); }

  ScopedRuntimeDir scoped_;
  RuntimeDir dir_;
  // Kept, so that no inode is used again.
  std::vector<Listener> listeners_;
};

TEST_F(BreakerTest, ClosedUntilSomebodyTripsIt) {
  EXPECT_EQ(Look(kStart), Verdict::kAsk);
  EXPECT_FALSE(ReadBreaker(dir_).has_value());
  Trip(kStart);
  ASSERT_TRUE(ReadBreaker(dir_).has_value());
  EXPECT_EQ(ReadBreaker(dir_)->opened, kStart);
  EXPECT_EQ(ReadBreaker(dir_)->socket, *IdentifyFile(dir_.broker_socket()));
}

TEST_F(BreakerTest, OpenForItsTimeThenOneProber) {
  Trip(kStart);
  constexpr absl::Duration kTick = absl::Microseconds(1);
  EXPECT_EQ(Look(kStart), Verdict::kSkip);
  EXPECT_EQ(Look(kStart + kBreakerTime - kTick), Verdict::kSkip);
  EXPECT_EQ(Look(kStart + kBreakerTime), Verdict::kProbe);
  // The others go on as before, for as long again: the prober may have died.
  EXPECT_EQ(Look(kStart + kBreakerTime), Verdict::kSkip);
  EXPECT_EQ(Look(kStart + 2 * kBreakerTime - kTick), Verdict::kSkip);
  EXPECT_EQ(Look(kStart + 2 * kBreakerTime), Verdict::kProbe);
}

TEST_F(BreakerTest, TheProberDecides) {
  Trip(kStart);
  Breaker mute = New();
  ASSERT_EQ(mute.Look(kStart + kBreakerTime), Verdict::kProbe);
  mute.Trip(kStart + kBreakerTime + absl::Seconds(1));
  EXPECT_EQ(Look(kStart + 2 * kBreakerTime), Verdict::kSkip);
  Breaker alive = New();
  ASSERT_EQ(alive.Look(kStart + 2 * kBreakerTime + absl::Seconds(1)),
            Verdict::kProbe);
  alive.Clear();
  EXPECT_EQ(Look(kStart + 2 * kBreakerTime + absl::Seconds(1)), Verdict::kAsk);
}

TEST_F(BreakerTest, SaysNothingAboutAnotherBroker) {
  Trip(kStart);
  Bind();
  EXPECT_EQ(Look(kStart), Verdict::kAsk);
}

TEST_F(BreakerTest, ATripIsAboutTheSocketThatWasAsked) {
  Breaker breaker = New();
  ASSERT_EQ(breaker.Look(kStart), Verdict::kAsk);
  Bind();
  breaker.Trip(kStart);
  EXPECT_EQ(Look(kStart), Verdict::kAsk);
}

TEST_F(BreakerTest, WithoutASocketNothingIsRemembered) {
  std::filesystem::remove(dir_.broker_socket());
  Trip(kStart);
  EXPECT_FALSE(ReadBreaker(dir_).has_value());
}

TEST_F(BreakerTest, OneFromBeforeTheBootIsOld) {
  Trip(kStart);
  EXPECT_EQ(Look(absl::Minutes(1)), Verdict::kProbe);
  EXPECT_EQ(Look(absl::Minutes(1)), Verdict::kSkip);
}

TEST_F(BreakerTest, ABrokerThatStartsRemovesIt) {
  EXPECT_TRUE(RemoveBreaker(dir_).ok());
  Trip(kStart);
  EXPECT_TRUE(RemoveBreaker(dir_).ok());
  EXPECT_EQ(Look(kStart), Verdict::kAsk);
}

TEST_F(BreakerTest, WhateverIsWrongWithTheFileTheBrokerIsAsked) {
  std::ofstream(file()) << "what is this?";
  EXPECT_EQ(Look(kStart), Verdict::kAsk);
  std::ofstream(file()) << std::string(64, 'x');
  EXPECT_EQ(Look(kStart), Verdict::kAsk);
  std::filesystem::remove(file());
  std::filesystem::create_symlink("/etc/passwd", file());
  EXPECT_EQ(Look(kStart), Verdict::kAsk);
  Trip(kStart);
  EXPECT_EQ(Look(kStart), Verdict::kAsk);
  std::filesystem::remove(file());
  ASSERT_EQ(mkfifo(file().c_str(), 0600), 0);
  Trip(kStart);
  EXPECT_EQ(Look(kStart), Verdict::kAsk);
}

TEST_F(BreakerTest, OfManyProcessesOneIsTheProber) {
  for (int round = 0; round < 20; ++round) {
    const absl::Duration now = kStart + round * 4 * kBreakerTime;
    Trip(now - 2 * kBreakerTime);
    // They start when the pipe is closed.
    int gate[2];
    ASSERT_EQ(pipe(gate), 0);
    std::vector<pid_t> children;
    for (int i = 0; i < 16; ++i) {
      const pid_t pid = fork();
      if (pid == 0) {
        close(gate[1]);
        char byte;
        if (read(gate[0], &byte, 1) != 0) _exit(9);
        _exit(static_cast<int>(Look(now)));
      }
      children.push_back(pid);
    }
    close(gate[0]);
    close(gate[1]);
    int probers = 0;
    for (const pid_t pid : children) {
      int status = 0;
      ASSERT_EQ(waitpid(pid, &status, 0), pid);
      ASSERT_TRUE(WIFEXITED(status));
      const auto verdict = static_cast<Verdict>(WEXITSTATUS(status));
      if (verdict == Verdict::kProbe) ++probers;
      EXPECT_NE(verdict, Verdict::kAsk);
    }
    EXPECT_EQ(probers, 1);
  }
}

}  // namespace
}  // namespace zcbroker::ipc
