// What `zcbroker explain` makes of the records that clients left.
#include <stdio.h>
#include <stdlib.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "client/fallback_records.h"
#include "ipc/runtime_dir.h"
#include "tests/fuzz/property.h"

namespace zcbroker::client {
namespace {

const ipc::RuntimeDir& Directory() {
  static const ipc::RuntimeDir directory = [] {
    char path[] = "/tmp/zcbf.XXXXXX";
    ZCB_PROPERTY(mkdtemp(path) != nullptr);
    ipc::RuntimeDirInputs inputs = ipc::HostRuntimeDirInputs(
        [](absl::string_view) { return absl::nullopt; });
    inputs.xdg_runtime_dir = path;
    auto made = ipc::RuntimeDir::OpenOrCreate(inputs);
    ZCB_PROPERTY(made.ok());
    return *std::move(made);
  }();
  return directory;
}

bool IsPlain(const std::string& text, size_t most) {
  for (const char c : text) {
    if (c < 0x20 || c >= 0x7f) return false;
  }
  return text.size() <= most;
}

// Whatever is shown to a person is plain text, and says the same again.
void CheckRecord(absl::string_view bytes) {
  const auto record = DecodeFallbackRecord(bytes);
  if (!record.has_value()) return;
  ZCB_PROPERTY(bytes.size() == kFallbackRecordBytes);
  ZCB_PROPERTY(IsPlain(record->service, 8));
  ZCB_PROPERTY(IsPlain(record->version, 12));
  ZCB_PROPERTY(IsPlain(record->program, 12));
  const std::string once = EncodeFallbackRecord(*record);
  const auto again = DecodeFallbackRecord(once);
  ZCB_PROPERTY(again.has_value());
  ZCB_PROPERTY(EncodeFallbackRecord(*again) == once);
}

// A file is its records, whatever stands between them.
void CheckFile(absl::string_view bytes) {
  FILE* file = fopen(Directory().Entry("fallbacks").c_str(), "we");
  ZCB_PROPERTY(file != nullptr);
  ZCB_PROPERTY(fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size());
  ZCB_PROPERTY(fclose(file) == 0);
  const auto records = ReadFallbackRecords(Directory());
  ZCB_PROPERTY(records.ok());
  ZCB_PROPERTY(records->size() <= bytes.size() / kFallbackRecordBytes);
}

}  // namespace
}  // namespace zcbroker::client

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  zcbroker::client::CheckRecord(bytes);
  zcbroker::client::CheckRecord(
      bytes.substr(0, zcbroker::client::kFallbackRecordBytes));
  zcbroker::client::CheckFile(bytes);
  return 0;
}
