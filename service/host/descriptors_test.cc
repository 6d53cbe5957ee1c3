#include "service/host/descriptors.h"

#include <fcntl.h>
#include <stdlib.h>

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "ipc/unique_fd.h"

namespace zcbroker::service {
namespace {

// In a process of its own, since a hard limit cannot be raised again.
class DescriptorsDeathTest : public ::testing::Test {
 protected:
  DescriptorsDeathTest() {
    ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  }

  static void Check(bool holds, const std::string& what) {
    if (holds) return;
    fprintf(stderr, "not so: %s\n", what.c_str());
    exit(1);
  }
  static void SetHardLimit(rlim_t hard) {
    const rlimit limit{hard, hard};
    Check(setrlimit(RLIMIT_NOFILE, &limit) == 0, "the limit can be lowered");
    RaiseDescriptorLimit();
  }
  // Until there are none.
  static std::vector<ipc::UniqueFd> TakeAll() {
    std::vector<ipc::UniqueFd> all;
    for (;;) {
      ipc::UniqueFd fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
      if (!fd) return all;
      all.push_back(std::move(fd));
    }
  }
};

TEST_F(DescriptorsDeathTest, TheReserveIsLentAndNothingElseHasIt) {
  const auto all_of_it = [] {
    SetHardLimit(256);
    std::vector<ipc::UniqueFd> usual = TakeAll();
    Check(!RoomForDescriptors(1), "none is left");
    Check(!IsOfReserve(usual.back().get()), "the last one is a usual one");
    {
      std::vector<ipc::UniqueFd> lent;
      {
        const DescriptorLoan loan;
        lent = TakeAll();
      }
      Check(lent.size() == kDescriptorReserve, "so many are lent");
      Check(IsOfReserve(lent.front().get()), "the first is of the reserve");
      Check(IsOfReserve(lent.back().get()), "the last is of the reserve");
      Check(TakeAll().empty(), "it is over");
    }
    Check(TakeAll().empty(), "what was lent is no usual one");
    usual.pop_back();
    usual.pop_back();
    Check(RoomForDescriptors(1) && RoomForDescriptors(2), "two are left");
    Check(!RoomForDescriptors(3), "three are not");
    Check(OriginalDescriptorLimit()->rlim_cur == 256, "children get it all");
    exit(0);
  };
  EXPECT_EXIT(all_of_it(), ::testing::ExitedWithCode(0), "");
}

TEST_F(DescriptorsDeathTest, OfFewItIsAQuarter) {
  const auto few = [] {
    SetHardLimit(64);
    rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    Check(limit.rlim_cur == 48, "48 are usual");
    exit(0);
  };
  EXPECT_EXIT(few(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace zcbroker::service
