#include <unistd.h>

#include "ipc/runtime_dir.h"

namespace zcbroker::ipc {

RuntimeDirInputs HostRuntimeDirInputs(const EnvironmentLookup& environment) {
  RuntimeDirInputs inputs;
  inputs.xdg_runtime_dir = environment("XDG_RUNTIME_DIR");
  inputs.euid = geteuid();
  return inputs;
}

}  // namespace zcbroker::ipc
