// What a broker makes of the journal it finds: any bytes, and any entry of this
// boot.
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/stubs/logging.h"
#include "ipc/process.h"
#include "proto/zcbroker/v1/journal.pb.h"
#include "service/host/journal.h"
#include "tests/fuzz/property.h"

namespace zcbroker::service {
namespace {

constexpr char kId[] = "0123456789abcdef";

const std::string& Directory() {
  static const std::string directory = [] {
    char path[] = "/tmp/zcbf.XXXXXX";
    ZCB_PROPERTY(mkdtemp(path) != nullptr);
    return std::string(path);
  }();
  return directory;
}

std::string Path() { return Directory() + "/" + kId + ".journal"; }

bool Exists(const std::string& path) {
  struct stat status;
  return lstat(path.c_str(), &status) == 0;
}

void Put(absl::string_view bytes) {
  FILE* file = fopen(Path().c_str(), "we");
  ZCB_PROPERTY(file != nullptr);
  ZCB_PROPERTY(fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size());
  ZCB_PROPERTY(fclose(file) == 0);
}

// An entry is trusted only where it is whole and of this boot; what makes no
// sense is out of the way of the next start, and an entry says the same again.
void Check(absl::string_view bytes) {
  Put(bytes);
  const Journal journal(Directory(), kId);
  const auto entry = journal.Read();
  const auto all = ReadJournals(Directory());
  ZCB_PROPERTY(all.size() == (entry.ok() ? 1 : 0));
  if (!entry.ok()) {
    ZCB_PROPERTY(!Exists(Path()));
    ZCB_PROPERTY(absl::IsDataLoss(entry.status()) ||
                 absl::IsNotFound(entry.status()));
    ZCB_PROPERTY(absl::IsNotFound(entry.status()) || Exists(Path() + ".bad"));
    return;
  }
  ZCB_PROPERTY(all[0].first == kId);
  ZCB_PROPERTY(entry->backend().boot_id() == *ipc::BootId());
  ZCB_PROPERTY(!entry->backend().endpoint().empty());
  ZCB_PROPERTY(journal.Write(*entry).ok());
  const auto again = journal.Read();
  ZCB_PROPERTY(again.ok());
  ZCB_PROPERTY(again->SerializeAsString() == entry->SerializeAsString());
  journal.Remove();
  ZCB_PROPERTY(!Exists(Path()));
}

}  // namespace
}  // namespace zcbroker::service

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace zcbroker;
  google::protobuf::SetLogHandler(nullptr);
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  service::Check(bytes);
  v1::JournalEntry entry;
  if (entry.ParseFromArray(data, static_cast<int>(size))) {
    entry.mutable_backend()->set_boot_id(*ipc::BootId());
    service::Check(entry.SerializeAsString());
  }
  return 0;
}
