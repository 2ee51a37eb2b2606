#include "src/base/unique_fd.h"

#include <unistd.h>

#include <cerrno>

namespace divvy {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) {
    const int saved = errno;
    ::close(fd_);
    errno = saved;
  }
  fd_ = fd;
}

}  // namespace divvy
