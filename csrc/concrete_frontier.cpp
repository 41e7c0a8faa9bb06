// How states are kept while they wait. In the block in which the base stands a state is its later steps and what they made;
// all else is the base's. Once that block is finished it is kept whole.

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <type_traits>

#include "concrete.hpp"

namespace tilesmith::concrete {
namespace {

using Length = std::uint16_t; // of a state in bytes, before it
constexpr std::size_t kChunkBytes = 64 << 10;
constexpr std::size_t kMostBytes = sizeof(State) + 64; // of a state
static_assert(kMostBytes < 1 << 16 && 8 * kMostBytes < kChunkBytes);

class Writer {
  public:
    explicit Writer(std::byte *to) : to_(to) {}

    template <typename T> void put(const T &value) { put(&value, 1); }
    template <typename T> void put(const T *first, std::size_t count) {
        static_assert(std::is_trivially_copyable_v<T>);
        std::memcpy(to_, first, count * sizeof(T));
        to_ += count * sizeof(T);
    }
    void put(const Value &value) {
        const bool read = value.expression != kNoExpression, large = value.shape.rank > 2;
        put(static_cast<std::uint8_t>(value.shape.rank | value.phase << 3 | read << 5));
        put(value.cls);
        if (read) put(value.expression);
        std::memcpy(to_, value.shape.extents.data(), 8);
        if (large) std::memcpy(to_ + 8, value.shape.extents.data() + 2, 8);
        to_ += large ? 16 : 8;
    }
    std::byte *end() const { return to_; }

  private:
    std::byte *to_;
};

class Reader {
  public:
    explicit Reader(const std::byte *from) : from_(from) {}

    template <typename T> void get(T &value) { get(&value, 1); }
    template <typename T> void get(T *first, std::size_t count) {
        std::memcpy(first, from_, count * sizeof(T));
        from_ += count * sizeof(T);
    }
    void get(Value &value) {
        std::uint8_t told = 0;
        get(told);
        value = {};
        value.shape.rank = told & 7;
        value.phase = told >> 3 & 3;
        get(value.cls);
        if (told >> 5) get(value.expression);
        get(value.shape.extents.data(), value.shape.rank > 2 ? 4 : 2);
    }

  private:
    const std::byte *from_;
};

} // namespace

void Frontier::push(const State &state) {
    if (chunks_.empty() || kChunkBytes - chunks_.back().end < kMostBytes)
        chunks_.push_back({std::make_unique_for_overwrite<std::byte[]>(kChunkBytes), 0, 0, 0});
    Chunk &chunk = chunks_.back();
    std::byte *start = chunk.bytes.get() + chunk.end;
    Writer writer(start + sizeof(Length));
    const bool near = base_.inside && state.inside && state.defined == base_.defined;
    writer.put(near);
    writer.put(state.unsound);
    if (!near) {
        writer.put(state.inside);
        writer.put(state.defined);
        writer.put(state.graph.count);
        writer.put(state.graph.made);
        writer.put(state.graph.last);
        writer.put(state.graph.tensors.data(), state.graph.count);
        writer.put(state.graph.nodes.data(), state.graph.made);
        writer.put(state.blocks.data(), state.defined + std::size_t{state.inside});
    }
    if (state.inside) {
        const Block &block = state.blocks[state.defined];
        const std::size_t steps = near ? base_.blocks[base_.defined].steps : 0, tiles = near ? base_.block.count : 0;
        writer.put(state.block.count);
        writer.put(block.steps);
        writer.put(state.block.last);
        writer.put(state.block.bytes);
        writer.put(block.body.data() + steps, block.steps - steps);
        for (const Value &tile : std::span(state.block.tiles).first(state.block.count)) writer.put(tile.uses);
        for (const Value &tile : std::span(state.block.tiles).first(state.block.count).subspan(tiles)) writer.put(tile);
    }
    const std::size_t bytes = static_cast<std::size_t>(writer.end() - start);
    const auto length = static_cast<Length>(bytes);
    std::memcpy(start, &length, sizeof length);
    chunk.end += bytes;
    ++chunk.count;
    ++size_;
    bytes_ += bytes;
}

void Frontier::read(State &state) const {
    Reader reader(chunks_.front().bytes.get() + chunks_.front().begin + sizeof(Length));
    bool near = false;
    reader.get(near);
    reader.get(state.unsound);
    if (near) {
        const KernelState &graph = base_.graph;
        state.inside = true;
        state.defined = base_.defined;
        state.graph.count = graph.count;
        state.graph.made = graph.made;
        state.graph.last = graph.last;
        std::copy_n(graph.tensors.begin(), graph.count, state.graph.tensors.begin());
        std::copy_n(graph.nodes.begin(), graph.made, state.graph.nodes.begin());
        std::copy_n(base_.blocks.begin(), base_.defined, state.blocks.begin());
        std::copy_n(base_.block.tiles.begin(), base_.block.count, state.block.tiles.begin());
        const Block &from = base_.blocks[base_.defined];
        Block &to = state.blocks[base_.defined];
        to.setting = from.setting;
        to.loads = from.loads;
        to.sources = from.sources;
        to.steps = from.steps;
        std::copy_n(from.body.begin(), from.steps, to.body.begin());
    } else {
        reader.get(state.inside);
        reader.get(state.defined);
        reader.get(state.graph.count);
        reader.get(state.graph.made);
        reader.get(state.graph.last);
        reader.get(state.graph.tensors.data(), state.graph.count);
        reader.get(state.graph.nodes.data(), state.graph.made);
        reader.get(state.blocks.data(), state.defined + std::size_t{state.inside});
    }
    if (!state.inside) return;
    Block &block = state.blocks[state.defined];
    const std::size_t steps = near ? block.steps : 0, tiles = near ? base_.block.count : 0;
    reader.get(state.block.count);
    reader.get(block.steps);
    reader.get(state.block.last);
    reader.get(state.block.bytes);
    reader.get(block.body.data() + steps, block.steps - steps);
    std::array<std::uint8_t, kMaxTiles> uses;
    reader.get(uses.data(), state.block.count);
    for (Value &tile : std::span(state.block.tiles).first(state.block.count).subspan(tiles)) reader.get(tile);
    for (std::size_t i = 0; i < state.block.count; ++i) state.block.tiles[i].uses = uses[i];
}

bool Frontier::pop(State &state) {
    if (!size_) return false;
    read(state);
    Chunk &chunk = chunks_.front();
    const std::size_t next = chunk.next(chunk.begin);
    bytes_ -= next - chunk.begin;
    chunk.begin = next;
    --size_;
    if (!--chunk.count) chunks_.pop_front();
    return true;
}

Frontier Frontier::split() {
    Frontier given(base_);
    const std::size_t half = size_ / 2;
    const auto give = [&](Chunk chunk) {
        const std::size_t bytes = chunk.end - chunk.begin;
        size_ -= chunk.count, bytes_ -= bytes;
        given.size_ += chunk.count, given.bytes_ += bytes;
        given.chunks_.push_front(std::move(chunk));
    };
    while (half && given.size_ + chunks_.back().count <= half) {
        give(std::move(chunks_.back()));
        chunks_.pop_back();
    }
    if (given.size_ || !half) return given;
    // Most is in the last one.
    Chunk &chunk = chunks_.back();
    std::size_t middle = chunk.begin;
    for (std::size_t i = half; i < chunk.count; ++i) middle = chunk.next(middle);
    Chunk copied{std::make_unique_for_overwrite<std::byte[]>(kChunkBytes), 0, chunk.end - middle, half};
    std::memcpy(copied.bytes.get(), chunk.bytes.get() + middle, copied.end);
    give(std::move(copied));
    chunk.end = middle;
    chunk.count -= half;
    return given;
}

void Frontier::write(tilesmith::Writer &writer) const {
    writer.put(base_);
    writer.put<std::uint64_t>(chunks_.size());
    for (const Chunk &chunk : chunks_) {
        writer.put<std::uint64_t>(chunk.count);
        writer.put_all(std::vector<std::byte>(chunk.bytes.get() + chunk.begin, chunk.bytes.get() + chunk.end));
    }
}

Frontier Frontier::read(tilesmith::Reader &reader) {
    Frontier made(reader.get<State>());
    for (auto left = reader.get<std::uint64_t>(); left > 0; --left) {
        const auto count = reader.get<std::uint64_t>();
        const auto bytes = reader.get_all<std::byte>();
        if (bytes.size() > kChunkBytes) throw std::invalid_argument("a message has too many states");
        Chunk chunk{std::make_unique_for_overwrite<std::byte[]>(kChunkBytes), 0, bytes.size(), count};
        std::ranges::copy(bytes, chunk.bytes.get());
        made.size_ += count;
        made.bytes_ += bytes.size();
        made.chunks_.push_back(std::move(chunk));
    }
    return made;
}

std::size_t Frontier::Chunk::next(std::size_t from) const {
    Length length;
    std::memcpy(&length, bytes.get() + from, sizeof length);
    return from + length;
}

} // namespace tilesmith::concrete
