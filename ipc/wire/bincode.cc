#include "ipc/wire/bincode.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_field.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "ipc/wire/layout.h"
#include "ipc/wire/utf8.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::ipc {
namespace layout {

using google::protobuf::RepeatedField;
using google::protobuf::RepeatedPtrField;

constexpr size_t kHashBytes = 32;

// The fewest bytes an element of a vec takes: a path or string its length, an
// environment entry two, every other nested type begins with a string or takes
// more than 8 bytes.
constexpr uint64_t kMinElementBytes = 8;

template <class M, class T>
using Get = T (M::*)() const;
template <class M, class T>
using Set = void (M::*)(T);
template <class M, class T>
using Mutable = T* (M::*)();

// An archive that appends a checked message.
class BincodeWriter {
 public:
  template <class M>
  using Ref = const M&;

  explicit BincodeWriter(std::string* out) : out_(*out) {}

  template <class M>
  bool U32(const M& m, Get<M, uint32_t> get, Set<M, uint32_t>) {
    return Put<4>((m.*get)());
  }
  template <class M>
  bool U64(const M& m, Get<M, uint64_t> get, Set<M, uint64_t>) {
    return Put<8>((m.*get)());
  }
  template <class M>
  bool I32(const M& m, Get<M, int32_t> get, Set<M, int32_t>) {
    return Put<4>(static_cast<uint32_t>((m.*get)()));
  }
  template <class M>
  bool Bool(const M& m, Get<M, bool> get, Set<M, bool>) {
    return Put<1>((m.*get)());
  }
  template <class M>
  bool Str(const M& m, Get<M, const std::string&> get,
           Mutable<M, std::string>) {
    return PutText((m.*get)());
  }
  template <class M>
  bool Bytes(const M& m, Get<M, const std::string&> get,
             Mutable<M, std::string>) {
    return PutText((m.*get)());
  }
  template <class M>
  bool Strings(const M& m, Get<M, const RepeatedPtrField<std::string>&> get,
               Mutable<M, RepeatedPtrField<std::string>>) {
    Put<8>((m.*get)().size());
    for (const std::string& text : (m.*get)()) PutText(text);
    return true;
  }
  template <class M>
  bool U32s(const M& m, Get<M, const RepeatedField<uint32_t>&> get,
            Mutable<M, RepeatedField<uint32_t>>) {
    Put<8>((m.*get)().size());
    for (uint32_t value : (m.*get)()) Put<4>(value);
    return true;
  }
  template <class M, class T>
  bool Repeated(const M& m, Get<M, const RepeatedPtrField<T>&> get,
                Mutable<M, RepeatedPtrField<T>>) {
    Put<8>((m.*get)().size());
    for (const T& item : (m.*get)()) Fields(*this, item);
    return true;
  }
  template <class M, class T>
  bool OptionalRepeated(const M& m, Get<M, bool> is_set, Set<M, bool>,
                        Get<M, const RepeatedPtrField<T>&> get,
                        Mutable<M, RepeatedPtrField<T>> mutable_field) {
    Put<1>((m.*is_set)());
    return !(m.*is_set)() || Repeated(m, get, mutable_field);
  }
  template <class M, class T>
  bool Required(const M& m, const char*, Get<M, bool>, Get<M, const T&> get,
                Mutable<M, T>) {
    return Fields(*this, (m.*get)());
  }
  template <class M, class T>
  bool Part(const M& m, Get<M, const T&> get, Mutable<M, T>) {
    return Fields(*this, (m.*get)());
  }
  template <class M, class T>
  bool Optional(const M& m, Get<M, bool> has, Get<M, const T&> get,
                Mutable<M, T>) {
    Put<1>((m.*has)());
    return !(m.*has)() || Fields(*this, (m.*get)());
  }
  template <class M>
  bool OptionalStr(const M& m, Get<M, bool> has, Get<M, const std::string&> get,
                   Mutable<M, std::string>) {
    Put<1>((m.*has)());
    return !(m.*has)() || PutText((m.*get)());
  }
  template <class M>
  bool OptionalHash(const M& m, Get<M, bool> has,
                    Get<M, const std::string&> get, Mutable<M, std::string>) {
    Put<1>((m.*has)());
    if ((m.*has)()) out_.append((m.*get)());
    return true;
  }
  template <class M, class E>
  bool Enum(const M& m, const char*, E, Get<M, E> get, Set<M, E>) {
    return Put<4>(static_cast<uint32_t>((m.*get)()) - 1);
  }
  bool Variant(const char*, uint32_t, uint32_t* arm) {
    return Put<4>(*arm - 1);
  }
  template <class M, class T>
  bool Unit(const M&, Mutable<M, T>) {
    return true;
  }

 private:
  template <size_t kBytes>
  bool Put(uint64_t value) {
    char bytes[kBytes];
    for (size_t i = 0; i < kBytes; ++i) {
      bytes[i] = static_cast<char>(value >> (8 * i) & 0xff);
    }
    out_.append(bytes, kBytes);
    return true;
  }
  bool PutText(const std::string& text) {
    Put<8>(text.size());
    out_.append(text);
    return true;
  }

  std::string& out_;
};

// An archive that fills a message from a payload.
class BincodeReader {
 public:
  template <class M>
  using Ref = M&;

  explicit BincodeReader(absl::string_view payload)
      : begin_(payload.data()),
        next_(payload.data()),
        end_(payload.data() + payload.size()) {}

  // After a call returned false.
  absl::Status error() const {
    return absl::InvalidArgumentError(
        absl::StrCat("bincode: ", problem_, " at offset ", next_ - begin_));
  }

  template <class M>
  bool U32(M& m, Get<M, uint32_t>, Set<M, uint32_t> set) {
    uint32_t value;
    if (!Take(&value)) return false;
    (m.*set)(value);
    return true;
  }
  template <class M>
  bool U64(M& m, Get<M, uint64_t>, Set<M, uint64_t> set) {
    uint64_t value;
    if (!Take(&value)) return false;
    (m.*set)(value);
    return true;
  }
  template <class M>
  bool I32(M& m, Get<M, int32_t>, Set<M, int32_t> set) {
    uint32_t value;
    if (!Take(&value)) return false;
    (m.*set)(static_cast<int32_t>(value));
    return true;
  }
  template <class M>
  bool Bool(M& m, Get<M, bool>, Set<M, bool> set) {
    bool value;
    if (!TakeBool(&value)) return false;
    (m.*set)(value);
    return true;
  }
  template <class M>
  bool Str(M& m, Get<M, const std::string&>,
           Mutable<M, std::string> mutable_field) {
    return TakeText((m.*mutable_field)());
  }
  template <class M>
  bool Bytes(M& m, Get<M, const std::string&>,
             Mutable<M, std::string> mutable_field) {
    return TakeBytes((m.*mutable_field)());
  }
  template <class M>
  bool Strings(M& m, Get<M, const RepeatedPtrField<std::string>&>,
               Mutable<M, RepeatedPtrField<std::string>> mutable_field) {
    uint64_t count;
    if (!TakeCount(kMinElementBytes, &count)) return false;
    for (; count > 0; --count) {
      if (!TakeText((m.*mutable_field)()->Add())) return false;
    }
    return true;
  }
  template <class M>
  bool U32s(M& m, Get<M, const RepeatedField<uint32_t>&>,
            Mutable<M, RepeatedField<uint32_t>> mutable_field) {
    uint64_t count;
    if (!TakeCount(sizeof(uint32_t), &count)) return false;
    for (; count > 0; --count) {
      uint32_t value;
      if (!Take(&value)) return false;
      (m.*mutable_field)()->Add(value);
    }
    return true;
  }
  template <class M, class T>
  bool Repeated(M& m, Get<M, const RepeatedPtrField<T>&>,
                Mutable<M, RepeatedPtrField<T>> mutable_field) {
    uint64_t count;
    if (!TakeCount(kMinElementBytes, &count)) return false;
    for (; count > 0; --count) {
      if (!Fields(*this, *(m.*mutable_field)()->Add())) return false;
    }
    return true;
  }
  template <class M, class T>
  bool OptionalRepeated(M& m, Get<M, bool>, Set<M, bool> set,
                        Get<M, const RepeatedPtrField<T>&> get,
                        Mutable<M, RepeatedPtrField<T>> mutable_field) {
    bool is_set;
    if (!TakeBool(&is_set)) return false;
    (m.*set)(is_set);
    return !is_set || Repeated(m, get, mutable_field);
  }
  template <class M, class T>
  bool Required(M& m, const char*, Get<M, bool>, Get<M, const T&>,
                Mutable<M, T> mutable_field) {
    return Fields(*this, *(m.*mutable_field)());
  }
  template <class M, class T>
  bool Part(M& m, Get<M, const T&>, Mutable<M, T> mutable_field) {
    return Fields(*this, *(m.*mutable_field)());
  }
  template <class M, class T>
  bool Optional(M& m, Get<M, bool>, Get<M, const T&>,
                Mutable<M, T> mutable_field) {
    bool present;
    if (!TakeBool(&present)) return false;
    return !present || Fields(*this, *(m.*mutable_field)());
  }
  template <class M>
  bool OptionalStr(M& m, Get<M, bool>, Get<M, const std::string&>,
                   Mutable<M, std::string> mutable_field) {
    bool present;
    if (!TakeBool(&present)) return false;
    return !present || TakeText((m.*mutable_field)());
  }
  template <class M>
  bool OptionalHash(M& m, Get<M, bool>, Get<M, const std::string&>,
                    Mutable<M, std::string> mutable_field) {
    bool present;
    if (!TakeBool(&present)) return false;
    return !present || TakeRaw(kHashBytes, (m.*mutable_field)());
  }
  template <class M, class E>
  bool Enum(M& m, const char* name, E last, Get<M, E>, Set<M, E> set) {
    uint32_t value;
    if (!Variant(name, last, &value)) return false;
    (m.*set)(static_cast<E>(value));
    return true;
  }
  bool Variant(const char*, uint32_t count, uint32_t* arm) {
    uint32_t index;
    if (!Take(&index)) return false;
    if (index >= count) return Fail("unknown variant");
    *arm = index + 1;
    return true;
  }
  template <class M, class T>
  bool Unit(M& m, Mutable<M, T> mutable_field) {
    (m.*mutable_field)();
    return true;
  }

 private:
  uint64_t Left() const { return static_cast<uint64_t>(end_ - next_); }
  bool Fail(const char* problem) {
    problem_ = problem;
    return false;
  }
  template <class T>
  bool Take(T* value) {
    if (Left() < sizeof(T)) return Fail("cut short");
    T result = 0;
    for (size_t i = 0; i < sizeof(T); ++i) {
      result |= static_cast<T>(static_cast<uint8_t>(next_[i])) << (8 * i);
    }
    next_ += sizeof(T);
    *value = result;
    return true;
  }
  bool TakeBool(bool* value) {
    uint8_t byte;
    if (!Take(&byte)) return false;
    if (byte > 1) return Fail("neither 0 nor 1");
    *value = byte == 1;
    return true;
  }
  bool TakeCount(uint64_t min_element_bytes, uint64_t* count) {
    if (!Take(count)) return false;
    return *count <= Left() / min_element_bytes || Fail("count too large");
  }
  bool TakeRaw(uint64_t bytes, std::string* out) {
    if (Left() < bytes) return Fail("cut short");
    out->assign(next_, bytes);
    next_ += bytes;
    return true;
  }
  bool TakeBytes(std::string* out) {
    uint64_t bytes;
    return Take(&bytes) && TakeRaw(bytes, out);
  }
  bool TakeText(std::string* out) {
    if (!TakeBytes(out)) return false;
    return IsUtf8(*out) || Fail("text is not UTF-8");
  }

  const char* const begin_;
  const char* next_;
  const char* const end_;
  const char* problem_ = "";
};

}  // namespace layout

namespace {

template <class M>
absl::StatusOr<M> Decode(absl::string_view payload) {
  M message;
  layout::BincodeReader reader(payload);
  if (!Fields(reader, message)) return reader.error();
  return message;
}

}  // namespace

void AppendBincode(const zccache::v1::Request& message, std::string* out) {
  layout::BincodeWriter writer(out);
  Fields(writer, message);
}

void AppendBincode(const zccache::v1::Response& message, std::string* out) {
  layout::BincodeWriter writer(out);
  Fields(writer, message);
}

absl::StatusOr<zccache::v1::Request> DecodeBincodeRequest(
    absl::string_view payload) {
  return Decode<zccache::v1::Request>(payload);
}

absl::StatusOr<zccache::v1::Response> DecodeBincodeResponse(
    absl::string_view payload) {
  return Decode<zccache::v1::Response>(payload);
}

}  // namespace zcbroker::ipc
