#include "client/fallback_records.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/fallback.h"
#include "gtest/gtest.h"
#include "ipc/boot_clock.h"
#include "ipc/environment.h"
#include "ipc/runtime_dir.h"
#include "ipc/testing/scoped_runtime_dir.h"

namespace zcbroker::client {
namespace {

FallbackRecord Sample() {
  FallbackRecord record;
  record.origin = FallbackOrigin::kLauncher;
  record.reason = FallbackReason::kNotReplayable;
  record.pid = 4'000'000'000U;
  record.parent = 2;
  record.session = 3;
  record.wall = absl::FromUnixMicros(1'700'000'000'123'456);
  record.since_boot = absl::Microseconds(987'654'321);
  record.service = "zccache";
  record.version = "1.11.22";
  record.program = "zcb";
  return record;
}

class FallbackRecordsTest : public testing::Test {
 protected:
  FallbackRecordsTest()
      : dir_(*ipc::RuntimeDir::OpenOrCreate(scoped_.inputs())) {}

  absl::Status Append(FallbackReason reason) {
    return AppendFallbackRecord(dir_, FallbackOrigin::kLibrary, reason,
                                "zccache", "1.11.22");
  }
  std::vector<FallbackRecord> Read() { return *ReadFallbackRecords(dir_); }
  void Write(const std::string& bytes) {
    std::ofstream(dir_.Entry("fallbacks"), std::ios::app) << bytes;
  }

  ipc::ScopedRuntimeDir scoped_;
  ipc::RuntimeDir dir_;
};

TEST(FallbackRecordTest, SurvivesItsBytes) {
  const std::string bytes = EncodeFallbackRecord(Sample());
  ASSERT_EQ(bytes.size(), kFallbackRecordBytes);
  const auto decoded = DecodeFallbackRecord(bytes);
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->origin, Sample().origin);
  EXPECT_EQ(decoded->reason, Sample().reason);
  EXPECT_EQ(decoded->pid, Sample().pid);
  EXPECT_EQ(decoded->parent, Sample().parent);
  EXPECT_EQ(decoded->session, Sample().session);
  EXPECT_EQ(decoded->wall, Sample().wall);
  EXPECT_EQ(decoded->since_boot, Sample().since_boot);
  EXPECT_EQ(decoded->service, Sample().service);
  EXPECT_EQ(decoded->version, Sample().version);
  EXPECT_EQ(decoded->program, Sample().program);
}

TEST(FallbackRecordTest, LongAndStrangeTextsAreCutAndPlain) {
  FallbackRecord record = Sample();
  record.service = "a-very-long-service";
  record.version = "12.34.56-rc.123456";
  record.program = "x\033[31m\xff";
  const auto decoded = DecodeFallbackRecord(EncodeFallbackRecord(record));
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->service, "a-very-l");
  EXPECT_EQ(decoded->version, "12.34.56-rc.");
  EXPECT_EQ(decoded->program, "x?[31m?");
}

TEST(FallbackRecordTest, WhatIsNoRecordIsNone) {
  const std::string good = EncodeFallbackRecord(Sample());
  for (const auto& [at, value] : std::map<std::size_t, char>{
           {0, 'x'}, {1, 1}, {2, 2}, {3, 21}, {32, '\x01'}, {52, '\x80'}}) {
    std::string bad = good;
    bad[at] = value;
    EXPECT_FALSE(DecodeFallbackRecord(bad).has_value()) << at;
  }
  EXPECT_FALSE(DecodeFallbackRecord(good.substr(1)).has_value());
  EXPECT_FALSE(DecodeFallbackRecord("").has_value());
}

TEST_F(FallbackRecordsTest, SaysWhoAndWhen) {
  const absl::Time before = absl::Now() - absl::Milliseconds(1);
  ASSERT_TRUE(Append(FallbackReason::kBrokerMute).ok());
  const std::vector<FallbackRecord> records = Read();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].reason, FallbackReason::kBrokerMute);
  EXPECT_EQ(records[0].pid, static_cast<std::uint32_t>(getpid()));
  EXPECT_EQ(records[0].parent, static_cast<std::uint32_t>(getppid()));
  EXPECT_EQ(records[0].session, static_cast<std::uint32_t>(getsid(0)));
  EXPECT_GE(records[0].wall, before);
  EXPECT_LE(records[0].since_boot, ipc::SinceBoot());
  EXPECT_EQ(records[0].version, "1.11.22");
  EXPECT_EQ(records[0].program, "fallback");
  struct stat info;
  ASSERT_EQ(stat(dir_.Entry("fallbacks").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
}

TEST_F(FallbackRecordsTest, NoRecordsIsNoError) { EXPECT_TRUE(Read().empty()); }

TEST_F(FallbackRecordsTest, ManyAtOnceLoseNothing) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([this] {
      for (int n = 0; n < 100; ++n) {
        EXPECT_TRUE(Append(FallbackReason::kRouteDead).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Read().size(), 800U);
}

TEST_F(FallbackRecordsTest, AFullFileIsKeptOnce) {
  std::string full;
  while (full.size() + kFallbackRecordBytes < kMaxFallbackFileBytes) {
    full += EncodeFallbackRecord(Sample());
  }
  Write(full);
  const std::size_t before = full.size() / kFallbackRecordBytes;
  // Room for one more, which fills it.
  ASSERT_TRUE(Append(FallbackReason::kBrokerMute).ok());
  EXPECT_EQ(std::filesystem::file_size(dir_.Entry("fallbacks.1")),
            kMaxFallbackFileBytes);
  EXPECT_FALSE(std::filesystem::exists(dir_.Entry("fallbacks")));
  ASSERT_TRUE(Append(FallbackReason::kBrokerSlow).ok());
  const std::vector<FallbackRecord> records = Read();
  ASSERT_EQ(records.size(), before + 2);
  EXPECT_EQ(records.back().reason, FallbackReason::kBrokerSlow);
}

TEST_F(FallbackRecordsTest, ManyWhoFillItKeepTheOldOne) {
  std::string full;
  while (full.size() + 4 * kFallbackRecordBytes < kMaxFallbackFileBytes) {
    full += EncodeFallbackRecord(Sample());
  }
  Write(full);
  const std::size_t before = full.size() / kFallbackRecordBytes;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([this] {
      for (int n = 0; n < 20; ++n) {
        EXPECT_TRUE(Append(FallbackReason::kRouteDead).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Read().size(), before + 160);
}

TEST_F(FallbackRecordsTest, ARecordCutShortCostsOnlyItself) {
  ASSERT_TRUE(Append(FallbackReason::kBrokerMute).ok());
  Write(EncodeFallbackRecord(Sample()).substr(0, 23));
  ASSERT_TRUE(Append(FallbackReason::kBrokerSlow).ok());
  const std::vector<FallbackRecord> records = Read();
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].reason, FallbackReason::kBrokerMute);
  EXPECT_EQ(records[1].reason, FallbackReason::kBrokerSlow);
}

// Wherever it was cut, and whatever its bytes look like: these have the
// beginning of a record in all their numbers.
TEST_F(FallbackRecordsTest, NoRecordIsSeenInThePiecesOfTwo) {
  FallbackRecord record = Sample();
  record.pid = record.parent = record.session = 0x000002fb;
  record.wall = absl::FromUnixMicros(0x0002fb000002fb);
  record.since_boot = absl::Microseconds(0x0002fb000002fb);
  const std::string bytes = EncodeFallbackRecord(record);
  for (std::size_t cut = 1; cut < kFallbackRecordBytes; ++cut) {
    std::filesystem::remove(dir_.Entry("fallbacks"));
    Write(bytes.substr(0, cut) + bytes);
    const std::vector<FallbackRecord> records = Read();
    ASSERT_EQ(records.size(), 1U) << cut;
    EXPECT_EQ(records[0].wall, record.wall) << cut;
    EXPECT_EQ(records[0].program, record.program) << cut;
  }
}

TEST_F(FallbackRecordsTest, WhatIsNoFileOfOursIsRefused) {
  const std::string path = dir_.Entry("fallbacks");
  std::filesystem::create_symlink("/tmp/nowhere", path);
  EXPECT_TRUE(absl::IsFailedPrecondition(Append(FallbackReason::kBrokerMute)));
  std::filesystem::remove(path);
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_FALSE(Append(FallbackReason::kBrokerMute).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(ReadFallbackRecords(dir_).status()));
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  EXPECT_FALSE(Append(FallbackReason::kBrokerMute).ok());
}

TEST_F(FallbackRecordsTest, RecordFallbackFindsTheDirectory) {
  const ipc::EnvironmentLookup environment =
      [&](absl::string_view name) -> absl::optional<std::string> {
    if (name == "XDG_RUNTIME_DIR") return scoped_.path();
    return absl::nullopt;
  };
  RecordFallback(environment, FallbackOrigin::kLauncher,
                 FallbackReason::kDaemonLost, "zccache", "1.15.8");
  ASSERT_EQ(Read().size(), 1U);
  EXPECT_EQ(Read()[0].origin, FallbackOrigin::kLauncher);
}

}  // namespace
}  // namespace zcbroker::client
