#include "ipc/testing/scoped_runtime_dir.h"

#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace zcbroker::ipc {

ScopedRuntimeDir::ScopedRuntimeDir() : path_("/tmp/zcb.XXXXXX") {
  if (mkdtemp(&path_[0]) == nullptr) {
    std::perror("mkdtemp /tmp/zcb.XXXXXX");
    std::abort();
  }
}

ScopedRuntimeDir::~ScopedRuntimeDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string ScopedRuntimeDir::Entry(absl::string_view leaf) const {
  return absl::StrCat(path_, "/", leaf);
}

RuntimeDirInputs ScopedRuntimeDir::inputs() const {
  RuntimeDirInputs inputs;
  inputs.xdg_runtime_dir = path_;
  inputs.euid = geteuid();
  inputs.run_user_root = Entry("no-run-user");
  inputs.tmp_root = Entry("no-tmp");
  return inputs;
}

}  // namespace zcbroker::ipc
