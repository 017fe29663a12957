// SPDX-License-Identifier: Apache-2.0
#include "io/hdf5.h"

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <new>

namespace mstpp {
namespace {

std::mutex& Hdf5Mutex() {
  static std::mutex mutex;
  return mutex;
}

struct Reason {
  char text[160] = "no reason given";
};

// Walking upward, the first entry is the one nearest to the cause.
herr_t KeepFirst(unsigned n, const H5E_error2_t* entry, void* data) {
  if (n == 0 && entry->desc != nullptr) {
    auto* reason = static_cast<Reason*>(data);
    std::snprintf(reason->text, sizeof(reason->text), "%s", entry->desc);
  }
  return 0;
}

// The driver's view of an open file. HDF5 asks for the public part first.
struct OpenFile {
  H5FD_t base;
  Hdf5Sink::State* state;
  haddr_t allocated;  // the end of the addresses in use
  haddr_t end;        // the end of what was written
};

OpenFile* Get(H5FD_t* file) { return reinterpret_cast<OpenFile*>(file); }
const OpenFile* Get(const H5FD_t* file) { return reinterpret_cast<const OpenFile*>(file); }

// The property list holds the address of the sink's state.
H5FD_t* Open(const char*, unsigned, hid_t access, haddr_t) {
  const auto* state = static_cast<Hdf5Sink::State* const*>(H5Pget_driver_info(access));
  auto* file = new (std::nothrow) OpenFile{};
  if (state == nullptr || file == nullptr) {
    delete file;
    return nullptr;
  }
  file->state = *state;
  return &file->base;
}

herr_t Close(H5FD_t* file) {
  delete Get(file);
  return 0;
}

herr_t Query(const H5FD_t*, unsigned long* flags) {  // NOLINT(google-runtime-int): HDF5's type
  // HDF5 may gather small pieces of metadata and of data before it writes them.
  *flags =
      H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_AGGREGATE_SMALLDATA;
  return 0;
}

haddr_t GetEnd(const H5FD_t* file, H5FD_mem_t) { return Get(file)->end; }
haddr_t GetAllocated(const H5FD_t* file, H5FD_mem_t) { return Get(file)->allocated; }
herr_t SetAllocated(H5FD_t* file, H5FD_mem_t, haddr_t address) {
  Get(file)->allocated = address;
  return 0;
}

// What lies beyond the end reads as zeros, as HDF5 expects of every driver.
herr_t Read(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, size_t bytes, void* out) {
  auto* next = static_cast<uint8_t*>(out);
  auto offset = static_cast<off_t>(address);
  while (bytes > 0) {
    const ssize_t got = ::pread(Get(file)->state->fd, next, bytes, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    next += got;
    offset += got;
    bytes -= static_cast<size_t>(got);
  }
  std::fill_n(next, bytes, uint8_t{0});
  return 0;
}

herr_t Write(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, size_t bytes, const void* data) {
  OpenFile* const open = Get(file);
  open->end = std::max(open->end, address + bytes);
  const auto* next = static_cast<const uint8_t*>(data);
  auto offset = static_cast<off_t>(address);
  while (bytes > 0 && open->state->error == 0) {
    const ssize_t written = ::pwrite(open->state->fd, next, bytes, offset);
    if (written < 0) {
      if (errno != EINTR) open->state->error = errno;
      continue;
    }
    next += written;
    offset += written;
    bytes -= static_cast<size_t>(written);
  }
  return 0;
}

// The file ends where the addresses in use end, even if nothing was written there.
herr_t Truncate(H5FD_t* file, hid_t, hbool_t) {
  OpenFile* const open = Get(file);
  if (open->end == open->allocated) return 0;
  open->end = open->allocated;
  if (open->state->error != 0) return 0;
  int result;
  do {
    result = ::ftruncate(open->state->fd, static_cast<off_t>(open->allocated));
  } while (result != 0 && errno == EINTR);
  if (result != 0) open->state->error = errno;
  return 0;
}

const H5FD_class_t& DriverClass() {
  static const H5FD_class_t driver = [] {
    H5FD_class_t made = {};
#if H5_VERSION_GE(1, 13, 0)
    made.version = H5FD_CLASS_VERSION;
    made.value = static_cast<H5FD_class_value_t>(500);  // of those left to drivers of no register
#endif
    made.name = "mstpp";
    made.maxaddr = static_cast<haddr_t>(std::numeric_limits<off_t>::max());
    made.fc_degree = H5F_CLOSE_STRONG;
    made.fapl_size = sizeof(Hdf5Sink::State*);
    made.open = Open;
    made.close = Close;
    made.query = Query;
    made.get_eoa = GetAllocated;
    made.set_eoa = SetAllocated;
    made.get_eof = GetEnd;
    made.read = Read;
    made.write = Write;
    made.truncate = Truncate;
    constexpr H5FD_mem_t kLists[] = H5FD_FLMAP_DICHOTOMY;
    std::copy(std::begin(kLists), std::end(kLists), made.fl_map);
    return made;
  }();
  return driver;
}

// The printer of an error stack that nobody has touched.
H5E_auto2_t DefaultPrinter() {
  H5E_auto2_t printer = nullptr;
  void* data = nullptr;
  if (const hid_t stack = H5Ecreate_stack(); stack >= 0) {
    H5Eget_auto2(stack, &printer, &data);
    H5Eclose_stack(stack);
  }
  return printer;
}

}  // namespace

Hdf5Session::Hdf5Session() : lock_(Hdf5Mutex()) {
  H5Eget_auto2(H5E_DEFAULT, &printer_, &printer_data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Hdf5Session::~Hdf5Session() {
  if (printer_ != DefaultPrinter()) {
    H5Eset_auto2(H5E_DEFAULT, printer_, printer_data_);
  }
}

std::string Hdf5Reason() {
  Reason reason;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, KeepFirst, &reason);
  return reason.text;
}

Error Hdf5Error(ErrorCode code, const std::string& path, const std::string& what) {
  return Error(code, path, what + " (HDF5: " + Hdf5Reason() + ")");
}

Hdf5Sink::Hdf5Sink(int fd)
    : state_{.fd = fd},
      driver_(H5FDregister(&DriverClass()), H5FDunregister, ErrorCode::kInternal, "HDF5",
              "cannot register the file driver"),
      access_(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, ErrorCode::kInternal, "HDF5",
              "cannot make an access list") {
  const State* const address = &state_;
  if (H5Pset_driver(access_, driver_, &address) < 0) {
    throw Hdf5Error(ErrorCode::kInternal, "HDF5", "cannot set the file driver");
  }
}

}  // namespace mstpp
