// Result<T>: a value or an Error that must be looked at. For code outside the shim and the pure
// cores' hot paths; the shim uses the driver's own codes.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace divvy {

// Stable machine-readable causes; the CLI maps them to exit codes, the API to HTTP codes.
enum class ErrorCode {
  kInvalid,      // the caller's input is wrong
  kNotFound,     // no such tenant, device, file
  kExists,       // name taken
  kNoRoom,       // admission refused: memory or compute already promised
  kUnavailable,  // daemon, driver or device not reachable
  kEnding,       // the daemon is about to end: ask again, the next one answers
  kDenied,       // no permission
  kIo,           // system call failed
  kInternal,     // a fault of ours
};

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // one line, says what to do
};

inline Error Invalid(std::string m) { return {ErrorCode::kInvalid, std::move(m)}; }
inline Error NotFound(std::string m) { return {ErrorCode::kNotFound, std::move(m)}; }
inline Error NoRoom(std::string m) { return {ErrorCode::kNoRoom, std::move(m)}; }
inline Error Unavailable(std::string m) { return {ErrorCode::kUnavailable, std::move(m)}; }
inline Error Internal(std::string m) { return {ErrorCode::kInternal, std::move(m)}; }

// "what: strerror(err)", code kIo (kDenied for EACCES and EPERM).
Error IoError(const std::string& what, int err);

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  Result(Error error) : v_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  bool ok() const { return v_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & { return std::get<0>(v_); }
  const T& value() const& { return std::get<0>(v_); }
  T&& value() && { return std::get<0>(std::move(v_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const { return std::get<1>(v_); }

 private:
  std::variant<T, Error> v_;
};

// Result<void>: success or an Error.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit by design
  bool ok() const { return !error_; }
  explicit operator bool() const { return ok(); }
  const Error& error() const { return *error_; }

 private:
  std::optional<Error> error_;
};
using Status = Result<void>;

}  // namespace divvy
