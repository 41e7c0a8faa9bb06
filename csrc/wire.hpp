// Numbers to bytes and back, for processes of one machine type.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace tilesmith {

class Writer {
  public:
    template <typename T> void put(const T &value) {
        static_assert(std::is_trivially_copyable_v<T>);
        bytes_.append(reinterpret_cast<const char *>(&value), sizeof value);
    }
    template <typename T> void put_all(const std::vector<T> &values) {
        static_assert(std::is_trivially_copyable_v<T>);
        put<std::uint64_t>(values.size());
        if (!values.empty()) bytes_.append(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(T));
    }
    std::string take() { return std::exchange(bytes_, {}); }

  private:
    std::string bytes_;
};

// Raises invalid_argument where the bytes end too early.
class Reader {
  public:
    explicit Reader(std::string_view bytes) : bytes_(bytes) {}

    bool more() const { return !bytes_.empty(); }
    template <typename T> T get() {
        T value;
        copy(&value, sizeof value);
        return value;
    }
    template <typename T> std::vector<T> get_all() {
        const auto size = get<std::uint64_t>();
        if (size > bytes_.size() / sizeof(T)) throw std::invalid_argument("a message ends too early");
        std::vector<T> values(size);
        if (size) copy(values.data(), size * sizeof(T));
        return values;
    }

  private:
    void copy(void *to, std::size_t size) {
        if (size > bytes_.size()) throw std::invalid_argument("a message ends too early");
        std::memcpy(to, bytes_.data(), size);
        bytes_.remove_prefix(size);
    }

    std::string_view bytes_;
};

} // namespace tilesmith
