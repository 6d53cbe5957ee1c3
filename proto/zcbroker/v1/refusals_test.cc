#include "proto/zcbroker/v1/refusals.h"

#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"

namespace zcbroker {
namespace {

TEST(RefusalsTest, HasARowForEveryRefusalInTheirOrder) {
  const google::protobuf::EnumDescriptor* all = v1::Refusal_descriptor();
  ASSERT_EQ(static_cast<size_t>(all->value_count()), Refusals().size() + 1);
  for (int i = 1; i < all->value_count(); ++i) {
    const RefusalTraits& row = Refusals()[i - 1];
    EXPECT_EQ(static_cast<int>(row.refusal), all->value(i)->number());
    EXPECT_EQ(absl::StrCat("REFUSAL_", row.name), all->value(i)->name());
    EXPECT_EQ(&TraitsOf(row.refusal), &row);
    EXPECT_EQ(FindRefusal(row.name), &row);
  }
  EXPECT_EQ(FindRefusal("UNSPECIFIED"), nullptr);
  EXPECT_EQ(FindRefusal("service_unknown"), nullptr);
}

TEST(RefusalsTest, ARetryIsForCodesThatAllowIt) {
  for (const RefusalTraits& row : Refusals()) {
    const bool transient = row.code == absl::StatusCode::kUnavailable ||
                           row.code == absl::StatusCode::kResourceExhausted;
    EXPECT_EQ(row.retry == Retry::kAfterDelay, transient) << row.name;
    // 0, 1 and 3 mean something else on the command line.
    EXPECT_NE(row.exit_status, 0) << row.name;
    EXPECT_NE(row.exit_status, 1) << row.name;
    EXPECT_NE(row.exit_status, 3) << row.name;
  }
}

// "| SERVICE_UNKNOWN | NOT_FOUND | 2 | no | 4 |"
std::string RowOf(const RefusalTraits& row) {
  return absl::StrCat(
      row.name, " ", absl::StatusCodeToString(row.code), " ",
      row.framed_code == 0 ? "-" : absl::StrCat(row.framed_code), " ",
      row.retry == Retry::kAfterDelay ? "yes" : "no", " ", row.exit_status);
}

TEST(RefusalsTest, TheDocumentedTableIsThisTable) {
  std::ifstream page("docs/protocol.md");
  ASSERT_TRUE(page.good()) << "docs/protocol.md is not in the test's data";
  std::vector<std::string> documented;
  for (std::string line; std::getline(page, line);) {
    std::vector<std::string> cells;
    for (const absl::string_view cell : absl::StrSplit(line, '|')) {
      cells.emplace_back(absl::StripAsciiWhitespace(cell));
    }
    // Other tables of the page have other columns or other first cells.
    if (cells.size() == 7 && FindRefusal(cells[1]) != nullptr) {
      documented.push_back(absl::StrJoin(
          std::vector<std::string>(cells.begin() + 1, cells.end() - 1), " "));
    }
  }
  std::vector<std::string> wanted;
  for (const RefusalTraits& row : Refusals()) wanted.push_back(RowOf(row));
  EXPECT_EQ(documented, wanted);
}

}  // namespace
}  // namespace zcbroker
