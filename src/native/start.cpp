// A check that the program bitfit makes before its libraries are initialised. libtorch's MKL looks
// for its files from the working directory. If that directory was deleted, MKL ends the process
// with a misleading message about a missing library.
#include <limits.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace {

void say(const char *text, size_t length) {
  // If stderr cannot be written, there is nowhere to report it.
  if (write(STDERR_FILENO, text, length) < 0) return;
}

void check_working_directory(int, char **, char **) {
  char path[PATH_MAX];
  if (getcwd(path, sizeof path) || errno != ENOENT) return;
  const ssize_t length = readlink("/proc/self/cwd", path, sizeof path);
  const char before[] = "error: the working directory, ",
             after[] = ", is gone; change to another\n";
  say(before, sizeof before - 1);
  for (ssize_t i = 0; i < length; ++i) {
    // Replace control characters, which a terminal would interpret.
    if (static_cast<unsigned char>(path[i]) < ' ' || path[i] == 127) path[i] = '?';
  }
  say(path, length < 0 ? 0 : length);
  say(after, sizeof after - 1);
  _exit(2);
}

}  // namespace

// The loader calls functions of .preinit_array before the initialisers of any library.
__attribute__((section(".preinit_array"),
               used)) static void (*const first)(int, char **, char **) = check_working_directory;
