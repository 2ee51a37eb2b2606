// Speaks to the daemon's sockets itself.
//   sockets garbage   noise and half messages, on every socket it can reach, then takes memory
//   sockets hello     a Hello of its own with impossible charges, then memory past the shim
//   sockets other     another tenant's socket in place of its own (DIVVY_SOCKET), then starts anew
//   sockets silent    opens connections until it is refused and says nothing on any
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>

#include "src/region/wire.h"
#include "tests/attacks/attack.h"

extern char** environ;

namespace {

int Connect(const std::string& path, int type) {
  const int fd = ::socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
  sockaddr_un to{.sun_family = AF_UNIX};
  if (path.size() >= sizeof(to.sun_path)) return -1;
  std::memcpy(to.sun_path, path.c_str(), path.size());
  if (fd >= 0 && ::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0) return fd;
  ::close(fd);
  return -1;
}

std::string OwnSocket() {
  if (::access(divvy::wire::kSelfSocket, F_OK) == 0) return divvy::wire::kSelfSocket;
  const char* named = std::getenv(divvy::wire::kSocketVariable);
  return named != nullptr ? named : "";
}

// Every socket of a daemon that can be seen from here.
std::vector<std::string> Reachable() {
  std::vector<std::string> found{OwnSocket()};
  const char* runtime = std::getenv("ATTACK_RUNTIME");
  std::error_code ec;
  if (runtime == nullptr) return found;
  for (auto it = std::filesystem::recursive_directory_iterator(
           runtime, std::filesystem::directory_options::skip_permission_denied, ec);
       !ec && it != std::filesystem::recursive_directory_iterator(); it.increment(ec))
    if (it->path().extension() == ".sock" &&
        it->path().string().find("/machine/") == std::string::npos)
      found.push_back(it->path().string());
  return found;
}

unsigned Noise() {
  std::mt19937 random(7);
  unsigned reached = 0;
  for (const std::string& path : Reachable()) {
    for (const int type : {SOCK_SEQPACKET, SOCK_STREAM}) {
      for (int round = 0; round < 40; ++round) {
        const int fd = Connect(path, type);
        if (fd < 0) break;
        ++reached;
        char bytes[4096];
        for (char& b : bytes) b = static_cast<char>(random());
        if (round % 2 == 0) {  // a plausible head
          const divvy::wire::Header head{divvy::wire::kMagic, divvy::wire::Type::kHello,
                                         sizeof(divvy::wire::Hello)};
          std::memcpy(bytes, &head, sizeof(head));
        }
        const size_t length =
            round % 3 == 0 ? sizeof(divvy::wire::Hello) : random() % sizeof(bytes);
        if (::send(fd, bytes, length, MSG_NOSIGNAL) < 0) round += 10;
        ::close(fd);
      }
    }
  }
  return reached;
}

bool ForgedHello() {
  const int fd = Connect(OwnSocket(), SOCK_SEQPACKET);
  if (fd < 0) return false;
  divvy::wire::Hello hello{};
  hello.header = {divvy::wire::kMagic, divvy::wire::Type::kHello, sizeof(hello)};
  hello.protocol_version = divvy::wire::kProtocolVersion;
  hello.layout_version = divvy::region::kLayoutVersion;
  hello.ns_pid = 1;
  hello.last_generation = 12345;
  hello.held_count = 1;
  std::memset(hello.held[0].uuid, 0x5a, 16);
  hello.held[0].units = divvy::region::kMaxUnits;
  return ::send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello);  // fd stays open
}

}  // namespace

int main(int, char** argv) {
  const std::string way = argv[1];
  if (way == "other") {
    std::vector<std::string> kept;
    std::string other = "/nonexistent";
    for (const std::string& path : Reachable())
      if (path != OwnSocket() && path.find("tenant.sock") != std::string::npos) other = path;
    for (char** e = environ; *e != nullptr; ++e)
      if (std::strncmp(*e, "DIVVY_SOCKET=", 13) != 0) kept.push_back(*e);
    kept.push_back("DIVVY_SOCKET=" + other);
    attack::Exec("grab", {}, kept);
  }
  if (way == "garbage") {
    const unsigned reached = Noise();
    attack::Holding holding = attack::EnterAndTake(attack::Driver(attack::ByName()));
    holding.note = std::to_string(reached) + " connections of noise";
    return attack::Report(holding);
  }
  if (way == "silent") {
    unsigned open = 0;
    while (open < 900 && Connect(OwnSocket(), SOCK_SEQPACKET) >= 0) ++open;
    attack::Holding holding = attack::EnterAndTake(attack::Driver(attack::ByName()));
    holding.note = std::to_string(open) + " silent connections";
    return attack::Report(holding);
  }
  const bool said = ForgedHello();
  ::setenv("LD_BIND_NOW", "1", 1);
  const auto past = attack::Driver(attack::ByName());
  const auto real = attack::Driver(attack::BySymbolTable(attack::IsDriverObject));
  attack::Holding holding = attack::EnterAndTake(real);
  holding.note = said ? "said hello by hand" : "not let in";
  static_cast<void>(past);
  return attack::Report(holding);
}
