// The word for a cause, as the API and `-o json` have it: "no_room". Scripts rely on them.
#pragma once

#include "src/base/result.h"

namespace divvy {

constexpr const char* ErrorWord(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid:
      return "invalid";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kExists:
      return "exists";
    case ErrorCode::kNoRoom:
      return "no_room";
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kEnding:
      return "ending";
    case ErrorCode::kDenied:
      return "denied";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "internal";
}

}  // namespace divvy
