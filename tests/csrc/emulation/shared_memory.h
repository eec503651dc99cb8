// Where the __shared__ variables are, so that each block finds NaN in them.
#pragma once

#include <link.h>

#include <algorithm>
#include <cstddef>

namespace mmif::emulation {

struct Span {
  char* begin = nullptr;
  size_t size = 0;
};

// NaN in every floating type, -1 in the others: what reads what no thread of the block wrote shows.
inline void poison(Span memory) { std::fill_n(memory.begin, memory.size, '\xff'); }

#if defined(__SANITIZE_ADDRESS__)
inline Span shared_memory() { return {}; }  // static variables, among others: they keep what the last block wrote
#else
inline thread_local char anchor;  // one of this library's thread-local variables; all others of them are __shared__

inline int find_anchor(dl_phdr_info* library, size_t, void* found) {
  const auto* header = std::find_if(library->dlpi_phdr, library->dlpi_phdr + library->dlpi_phnum,
                                    [](const auto& h) { return h.p_type == PT_TLS; });
  if (header == library->dlpi_phdr + library->dlpi_phnum) return 0;
  const Span memory{static_cast<char*>(library->dlpi_tls_data), header->p_memsz};
  if (&anchor < memory.begin || &anchor >= memory.begin + memory.size) return 0;
  *static_cast<Span*>(found) = memory;
  return 1;
}

inline Span shared_memory() {
  Span memory;
  dl_iterate_phdr(find_anchor, &memory);
  return memory;
}
#endif

}  // namespace mmif::emulation
