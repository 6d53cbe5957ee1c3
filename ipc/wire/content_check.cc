#include "ipc/wire/content_check.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/repeated_field.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "ipc/wire/layout.h"
#include "ipc/wire/utf8.h"
#include "proto/zccache/v1/zccache.pb.h"

namespace zcbroker::ipc {
namespace layout {

constexpr size_t kToolHashBytes = 32;

// An archive that changes nothing and stops at the first broken rule.
class ContentChecker {
 public:
  template <class M>
  using Ref = const M&;
  template <class M, class T>
  using Get = T (M::*)() const;
  template <class M, class T>
  using Set = void (M::*)(T);
  template <class M, class T>
  using Mutable = T* (M::*)();

  explicit ContentChecker(TextOrigin origin) : origin_(origin) {}

  const std::string& error() const { return error_; }

  template <class M>
  bool U32(const M&, Get<M, uint32_t>, Set<M, uint32_t>) {
    return true;
  }
  template <class M>
  bool U64(const M&, Get<M, uint64_t>, Set<M, uint64_t>) {
    return true;
  }
  template <class M>
  bool I32(const M&, Get<M, int32_t>, Set<M, int32_t>) {
    return true;
  }
  template <class M>
  bool Bool(const M&, Get<M, bool>, Set<M, bool>) {
    return true;
  }
  template <class M>
  bool Bytes(const M&, Get<M, const std::string&>, Mutable<M, std::string>) {
    return true;
  }
  template <class M>
  bool Str(const M& m, Get<M, const std::string&> get,
           Mutable<M, std::string>) {
    return Text((m.*get)());
  }
  template <class M>
  bool Strings(
      const M& m,
      Get<M, const google::protobuf::RepeatedPtrField<std::string>&> get,
      Mutable<M, google::protobuf::RepeatedPtrField<std::string>>) {
    if (origin_ == TextOrigin::kParsed) return true;
    for (const std::string& text : (m.*get)()) {
      if (!Text(text)) return false;
    }
    return true;
  }
  template <class M>
  bool U32s(const M&, Get<M, const google::protobuf::RepeatedField<uint32_t>&>,
            Mutable<M, google::protobuf::RepeatedField<uint32_t>>) {
    return true;
  }
  template <class M, class T>
  bool Repeated(const M& m,
                Get<M, const google::protobuf::RepeatedPtrField<T>&> get,
                Mutable<M, google::protobuf::RepeatedPtrField<T>>) {
    for (const T& item : (m.*get)()) {
      if (!Fields(*this, item)) return false;
    }
    return true;
  }
  template <class M, class T>
  bool OptionalRepeated(
      const M& m, Get<M, bool>, Set<M, bool>,
      Get<M, const google::protobuf::RepeatedPtrField<T>&> get,
      Mutable<M, google::protobuf::RepeatedPtrField<T>> mutable_field) {
    return Repeated(m, get, mutable_field);
  }
  template <class M, class T>
  bool Required(const M& m, const char* name, Get<M, bool> has,
                Get<M, const T&> get, Mutable<M, T>) {
    if (!(m.*has)()) return Missing(name);
    return Fields(*this, (m.*get)());
  }
  template <class M, class T>
  bool Part(const M& m, Get<M, const T&> get, Mutable<M, T>) {
    return Fields(*this, (m.*get)());
  }
  template <class M, class T>
  bool Optional(const M& m, Get<M, bool> has, Get<M, const T&> get,
                Mutable<M, T>) {
    return !(m.*has)() || Fields(*this, (m.*get)());
  }
  template <class M>
  bool OptionalStr(const M& m, Get<M, bool>, Get<M, const std::string&> get,
                   Mutable<M, std::string>) {
    return Text((m.*get)());
  }
  template <class M>
  bool OptionalHash(const M& m, Get<M, bool> has,
                    Get<M, const std::string&> get, Mutable<M, std::string>) {
    if (!(m.*has)() || (m.*get)().size() == kToolHashBytes) return true;
    error_ = absl::StrCat("invalid v16 prost tool_hash length ",
                          (m.*get)().size(), "; expected ", kToolHashBytes);
    return false;
  }
  template <class M, class E>
  bool Enum(const M& m, const char* name, E last, Get<M, E> get, Set<M, E>) {
    const int value = (m.*get)();
    if (value >= 1 && value <= last) return true;
    error_ = absl::StrCat("invalid v16 prost value ", value, " for ", name);
    return false;
  }
  bool Variant(const char* name, uint32_t, uint32_t* arm) {
    return *arm != 0 || Missing(name);
  }
  template <class M, class T>
  bool Unit(const M&, Mutable<M, T>) {
    return true;
  }

 private:
  bool Text(const std::string& text) {
    if (origin_ == TextOrigin::kParsed || IsUtf8(text)) return true;
    error_ = "path or text is not valid UTF-8";
    return false;
  }
  bool Missing(const char* name) {
    error_ = absl::StrCat("missing required v16 prost field ", name);
    return false;
  }

  const TextOrigin origin_;
  std::string error_;
};

}  // namespace layout

namespace {

template <class M>
absl::Status Check(const M& message, TextOrigin origin, const char* no_body) {
  if (message.body_case() == M::BODY_NOT_SET) {
    return absl::InvalidArgumentError(no_body);
  }
  if (origin == TextOrigin::kUnverified && !IsUtf8(message.request_id())) {
    return absl::InvalidArgumentError("request_id is not valid UTF-8");
  }
  layout::ContentChecker checker(origin);
  if (Fields(checker, message)) return absl::OkStatus();
  return absl::InvalidArgumentError(checker.error());
}

}  // namespace

absl::Status CheckContent(const zccache::v1::Request& request,
                          TextOrigin origin) {
  return Check(request, origin,
               "v16 prost request is missing its request body");
}

absl::Status CheckContent(const zccache::v1::Response& response,
                          TextOrigin origin) {
  return Check(response, origin,
               "v16 prost response is missing its response body");
}

}  // namespace zcbroker::ipc
