#include "src/hook/copies.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <set>

#include "src/base/delivery.h"

namespace divvy::hook {
namespace {

constexpr char kStem[] = "libcuda.so";
constexpr size_t kStemLength = sizeof kStem - 1;
constexpr size_t kMostConf = 64 << 10, kMostCache = 16 << 20;
constexpr size_t kMostFolders = 512;
constexpr int kMostIncludes = 8;  // deep

std::string Parent(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

// One line of ld.so.conf: "include PATTERN…", or folders with spaces, commas or colons between.
void ReadConf(const Root& root, const std::string& file, int depth, std::vector<std::string>& out) {
  const Result<std::string> text = root.Read(file, kMostConf);
  if (!text.ok() || depth > kMostIncludes) return;
  for (size_t at = 0; at < text->size() && out.size() < kMostFolders;) {
    const size_t end = std::min(text->find('\n', at), text->size());
    std::string line = text->substr(at, end - at);
    at = end + 1;
    line.resize(std::min(line.find('#'), line.size()));
    bool include = false, first = true;
    for (size_t word = 0; (word = line.find_first_not_of(" \t\r,:", word)) != std::string::npos;) {
      const size_t stop = std::min(line.find_first_of(" \t\r,:", word), line.size());
      std::string one = line.substr(word, stop - word);
      word = stop;
      if (first && one == "include") {
        include = true;
      } else if (include) {
        if (one[0] != '/') one = Parent(file) + "/" + one;
        for (const std::string& more : root.Match(one)) ReadConf(root, more, depth + 1, out);
      } else if (one[0] == '/') {
        out.push_back(one.substr(0, one.find('=')));  // "=TYPE" of old
      }
      first = false;
    }
  }
}

uint32_t Word(const std::string& bytes, size_t at) {
  uint32_t word = 0;
  std::memcpy(&word, bytes.data() + at, sizeof word);
  return word;
}

class Collector {
 public:
  explicit Collector(const Root& root) : root_(root) {}

  void AddFolder(const std::string& folder) {
    if (!folders_.insert(folder).second || folders_.size() > kMostFolders) return;
    for (const std::string& name : root_.List(folder))
      if (name.compare(0, kStemLength, kStem) == 0)
        AddFile((folder == "/" ? "" : folder) + "/" + name);
  }
  void AddFile(const std::string& path) {
    Result<UniqueFd> file = root_.Open(path, O_PATH);
    if (!file.ok()) return;
    // Where it really lies: links to one file are one copy, two mounts of one file are two.
    char place[PATH_MAX];
    const ssize_t n = ::readlink(ByDescriptor(*file).c_str(), place, sizeof place);
    if (n <= 0 || !places_.insert(std::string(place, static_cast<size_t>(n))).second) return;
    const Result<std::string> header = ReadHeld(*file, delivery::kElfHeaderBytes);
    if (header.ok() && delivery::IsNativeElf(*header)) found_.push_back({path, std::move(*file)});
  }
  std::vector<Copy> Take() { return std::move(found_); }

 private:
  const Root& root_;
  std::set<std::string> folders_, places_;
  std::vector<Copy> found_;
};

}  // namespace

std::vector<std::string> CachedCopies(const std::string& cache) {
  // struct cache_file_new and file_entry_new of glibc's ldcache: facts of the format.
  constexpr char kMagic[] = "glibc-ld.so.cache1.1";
  constexpr size_t kHeader = 48, kEntry = 24;
  constexpr uint32_t kElf64 = 0x0303;  // FLAG_ELF_LIBC6 | FLAG_X8664_LIB64
  std::vector<std::string> found;
  const size_t base = cache.find(kMagic);
  if (base == std::string::npos || cache.size() - base < kHeader) return found;
  const uint32_t count = Word(cache, base + 20);
  const auto text = [&](uint32_t offset) -> std::string {
    if (offset >= cache.size() - base) return "";
    const size_t end = cache.find('\0', base + offset);
    return end == std::string::npos ? "" : cache.substr(base + offset, end - base - offset);
  };
  for (uint32_t i = 0; i < count; ++i) {
    const size_t at = base + kHeader + size_t{i} * kEntry;
    if (at + kEntry > cache.size()) break;
    if (Word(cache, at) != kElf64) continue;
    const uint32_t key = Word(cache, at + 4);
    if (key >= cache.size() - base || cache.compare(base + key, kStemLength, kStem) != 0) continue;
    if (std::string path = text(Word(cache, at + 8)); !path.empty() && path[0] == '/')
      found.push_back(std::move(path));
  }
  return found;
}

std::vector<Copy> FindCopies(const Root& root, const Container& container) {
  Collector collector(root);
  for (const std::string& folder : container.library_path) collector.AddFolder(folder);
  const Result<std::string> cache = root.Read("/etc/ld.so.cache", kMostCache);
  for (const std::string& path : CachedCopies(cache.ok() ? *cache : "")) collector.AddFile(path);
  for (const std::string& folder : container.driver_mounts) collector.AddFolder(folder);
  std::vector<std::string> configured;
  ReadConf(root, "/etc/ld.so.conf", 0, configured);
  for (const std::string& folder : configured) collector.AddFolder(folder);
  for (const char* pattern : delivery::kDriverDirs)
    for (const std::string& folder : root.Match(pattern)) collector.AddFolder(folder);
  return collector.Take();
}

bool HasGlibc(const Root& root) { return root.Open("/lib64/ld-linux-x86-64.so.2", O_PATH).ok(); }

bool Has32BitLoader(const Root& root) { return root.Open("/lib/ld-linux.so.2", O_PATH).ok(); }

}  // namespace divvy::hook
