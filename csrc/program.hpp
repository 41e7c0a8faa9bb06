// What is searched for: a tensor program whose dimensions are named. Plain data, made by Python or by a test.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tilesmith {

// A named dimension, from 1; 0 is a dimension of extent 1. Two dimensions share a name only where they run together.
using Base = std::uint8_t;
inline constexpr int kMaxBases = 20;
inline constexpr int kRank = 6;

// A set of bases, a bit for each.
using Bases = std::uint32_t;
constexpr Bases bit(Base base) { return Bases{1} << base; }

// The parts of a dimension: in the block, over the loop, over the grid. A dimension that is summed may have all three.
enum Part : std::uint8_t { kInBlock = 1, kInLoop = 2, kInGrid = 4 };
inline constexpr int kParts = 3;

// A tensor's dimensions, the last one in the lowest byte.
using Dims = std::uint64_t;

constexpr Base dim(Dims dims, int from_end) { return static_cast<Base>(dims >> (8 * from_end)); }
constexpr Dims with_dim(Dims dims, int from_end, Base base) {
    return (dims & ~(Dims{0xff} << (8 * from_end))) | (Dims{base} << (8 * from_end));
}

// Where a dimension's name stands, or -1.
constexpr int find_dim(Dims dims, Base base) {
    for (int i = 0; i < kRank; ++i)
        if (dim(dims, i) == base) return i;
    return -1;
}

enum class Fn : std::uint8_t {
    exp,      // of sums into products
    square,
    sqrt,     // of products into products
    rsqrt,
    reciprocal,
    scale,    // times the constant `id`
    shift,    // plus the constant `id`
    rms_norm, // x / sqrt(sum(x²)·constant[id] + constant[eps]) over `base`; -1 leaves a constant out
    opaque,   // any other function of one value, known by `id`
};

struct Function {
    Fn fn{};
    std::int16_t id = -1;
    std::int16_t eps = -1;
    Base base = 0;

    bool operator==(const Function &) const = default;
};

enum class Term : std::uint8_t {
    input,    // a: place among the inputs
    apply,    // function b of node a
    add,      // of nodes a and b
    sub,
    mul,
    div,
    matmul,   // contracts the last dimension of a with the last but one of b; where dimensions are named, those in `over`
    sum,      // of node a over dimension b, counted from the end; where dimensions are named, over those in `over`
    permute,  // of node a: b holds three bits for every dimension's source, counted from the end
    rename,   // of node a: base b / 256 becomes b % 256
};

struct Node {
    Term term{};
    int a = 0;
    int b = 0;
    Bases over = 0;
};

struct Input {
    int tensor = 0; // two views of one tensor have the same number
    Dims dims = 0;
};

struct Program {
    // Whether dimensions are known by their names alone. Else their order counts, and operands broadcast from the right.
    bool named = false;
    std::vector<std::uint8_t> parts; // of each base; parts[0] is unused
    std::vector<Input> inputs;
    std::vector<Function> functions;
    std::vector<Node> nodes;
    std::vector<int> outputs;
    std::vector<std::pair<Base, Base>> aliases; // two names of one extent, for a tensor that is loaded under both

    int bases() const { return static_cast<int>(parts.size()) - 1; }
};

} // namespace tilesmith
