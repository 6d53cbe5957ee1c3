#include "service/host/framed_names.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "ipc/broker_endpoint.h"
#include "ipc/deadline.h"
#include "ipc/endpoint.h"
#include "ipc/listener.h"
#include "ipc/socket.h"
#include "ipc/testing/scoped_runtime_dir.h"
#include "ipc/user_sid_hash.h"

namespace zcbroker::service {
namespace {

// The names in a runtime directory of our own; those of the machine are made
// or left alone in the same way, and are not looked at here.
class FramedNamesTest : public ::testing::Test {
 protected:
  FramedNamesTest() {
    ipc::BrokerAddressInputs inputs;
    inputs.xdg_runtime_dir = dir_.path();
    inputs.real_uid = getuid();
    const std::string bare =
        ipc::SharedBrokerName(ipc::HostUserSidHash().value()).value();
    for (const ipc::Endpoint& name : ipc::LinuxBrokerAddresses(bare, inputs)) {
      if (absl::StartsWith(name.path(), dir_.path())) name_ = name.path();
    }
    listener_ =
        std::make_unique<ipc::Listener>(ipc::Listener::Bind(Socket()).value());
  }

  ipc::Endpoint Socket() const {
    return ipc::Endpoint::Parse(dir_.Entry("broker.sock")).value();
  }
  std::string Target() const {
    char target[PATH_MAX];
    const ssize_t n = readlink(name_.c_str(), target, sizeof(target));
    return n > 0 ? std::string(target, static_cast<size_t>(n)) : "";
  }
  bool Published(const FramedNames& names) const {
    return std::find(names.published().begin(), names.published().end(),
                     name_) != names.published().end();
  }
  bool HasProblem(const FramedNames& names) const {
    return std::any_of(
        names.problems().begin(), names.problems().end(),
        [&](const v1::Problem& problem) { return problem.where() == name_; });
  }
  void MakeParents() const {
    for (size_t slash = name_.find('/', dir_.path().size() + 1);
         slash != std::string::npos; slash = name_.find('/', slash + 1)) {
      mkdir(name_.substr(0, slash).c_str(), 0700);
    }
  }

  const ipc::ScopedRuntimeDir dir_;
  std::string name_;
  std::unique_ptr<ipc::Listener> listener_;
};

TEST_F(FramedNamesTest, TheNameLeadsToTheSocketUntilItIsRemoved) {
  ASSERT_NE(name_, "");
  const FramedNames names(Socket(), dir_.path());
  EXPECT_TRUE(Published(names));
  EXPECT_EQ(Target(), Socket().path());
  EXPECT_TRUE(ipc::Connect(ipc::Endpoint::Parse(name_).value(),
                           ipc::Deadline::After(absl::Seconds(10)))
                  .ok());
  struct stat status;
  ASSERT_EQ(stat(name_.substr(0, name_.rfind('/')).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
  names.Remove();
  EXPECT_EQ(Target(), "");
}

TEST_F(FramedNamesTest, AStaleNameIsReplaced) {
  MakeParents();
  ASSERT_EQ(symlink("/nonexistent/broker.sock", name_.c_str()), 0);
  const FramedNames names(Socket(), dir_.path());
  EXPECT_TRUE(Published(names));
  EXPECT_EQ(Target(), Socket().path());
  names.Remove();
}

TEST_F(FramedNamesTest, AnotherBrokersNameIsLeftAlone) {
  MakeParents();
  const auto other = ipc::Listener::Bind(ipc::Endpoint::Parse(name_).value());
  ASSERT_TRUE(other.ok()) << other.status();
  const auto identity = ipc::IdentifyFile(name_);
  const FramedNames names(Socket(), dir_.path());
  EXPECT_FALSE(Published(names));
  EXPECT_TRUE(HasProblem(names));
  EXPECT_EQ(*ipc::IdentifyFile(name_), *identity);
  names.Remove();
  EXPECT_EQ(*ipc::IdentifyFile(name_), *identity);
}

TEST_F(FramedNamesTest, ANameThatWasTakenOverMeanwhileIsNotRemoved) {
  const FramedNames names(Socket(), dir_.path());
  ASSERT_EQ(unlink(name_.c_str()), 0);
  ASSERT_EQ(symlink("/somebody/else", name_.c_str()), 0);
  names.Remove();
  EXPECT_EQ(Target(), "/somebody/else");
}

TEST_F(FramedNamesTest, ADirectoryOpenToOthersIsAProblem) {
  MakeParents();
  const std::string parent = name_.substr(0, name_.rfind('/'));
  ASSERT_EQ(chmod(parent.c_str(), 0777), 0);
  const FramedNames names(Socket(), dir_.path());
  EXPECT_FALSE(Published(names));
  EXPECT_TRUE(HasProblem(names));
  EXPECT_EQ(Target(), "");
  names.Remove();
}

}  // namespace
}  // namespace zcbroker::service
