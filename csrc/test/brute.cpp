#include "brute.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../hash.hpp"

namespace tilesmith::test {

std::string written_input(int input) { return std::string("x") + std::to_string(input); }
std::string written_apply(int function, const std::string &x) { return std::string("f") + std::to_string(function) + "(" + x + ")"; }
std::string written_sum(bool over_loop, Bases over, const std::string &x) {
    return std::string(over_loop ? "gather" : "sum") + std::to_string(over) + "(" + x + ")";
}
std::string written_pair(Term term, Bases over, std::string x, std::string y) {
    if (term != Term::sub && term != Term::div && y < x) std::swap(x, y);
    const char *name = term == Term::add ? "add" : term == Term::sub ? "sub" : term == Term::mul ? "mul" : "div";
    return (term == Term::matmul ? std::string("matmul") + std::to_string(over) : name) + ("(" + x + "," + y + ")");
}
std::string written_graph(Base loop, const std::string &stored) { return std::to_string(loop) + ":" + stored; }

namespace {

// Two primes, the first one more than twice the second: exponentials live in a subgroup of the second one's order.
constexpr std::uint64_t kQ = 1073740571, kP = 2 * kQ + 1;
// Numbers that obey the stated axioms and no more: in each plane the inverse and the root are powers, which are
// multiplicative and cancel nothing; the inverse moves every plane to the next, so that it does not commute with the root;
// minus one is 1 in one plane, so that its square is 1 but x - x is not 0.
constexpr int kPlanes = 3, kRounds = 2, kLayers = kPlanes * kRounds;
constexpr std::array<std::array<std::uint64_t, 2>, kPlanes> kInverse{{{97, 101}, {89, 83}, {79, 59}}};
constexpr std::array<std::array<std::uint64_t, 2>, kPlanes> kRoot{{{61, 67}, {71, 73}, {53, 47}}};
constexpr std::array<bool, kPlanes> kNegates{true, false, true};

// Outside exponentials a residue is one of the first prime, inside of the second.
enum Side { kOutside, kInside };
constexpr int plane_of(int layer) { return layer / kRounds; }

template <Side side> constexpr std::uint64_t reduced(std::uint64_t x) { return side == kOutside ? x % kP : x % kQ; }

template <Side side> std::uint64_t power(std::uint64_t x, std::uint64_t exponent) {
    std::uint64_t made = 1;
    for (; exponent; exponent >>= 1) {
        if (exponent & 1) made = reduced<side>(made * x);
        x = reduced<side>(x * x);
    }
    return made;
}

// A set of labels, a bit for each: the part of a base in the tile, and its part over the loop.
using Labels = std::uint32_t;
constexpr int kMaxLabels = 8;

// Residues over every label that a value depends on, the lowest label fastest, layer after layer; first outside, then
// inside where something may look there.
struct Array {
    Labels labels = 0;
    bool inside = false;
    std::vector<std::uint32_t> data;
};

using Id = std::uint32_t;

// All values that were come across, each once.
class Values {
  public:
    Values(const Program &program) : program_(program), known_(1 << 16) {
        if (!program.named || program.outputs.size() != 1) throw std::invalid_argument("a program of another kind");
        for (const Function &function : program.functions) looks_inside_ |= function.fn == Fn::exp;
        for (Base b = 1; b <= program.bases(); ++b)
            for (const bool loop : {false, true}) {
                if (loop && !(program.parts[b] & kInLoop)) continue;
                if (labels_.size() == kMaxLabels) throw std::invalid_argument("a program of too many dimensions");
                (loop ? looped_ : in_tile_)[b] = Labels{1} << labels_.size();
                labels_.push_back(b);
            }
        places_.resize(std::size_t{1} << 2 * labels_.size());
        firsts_.resize(places_.size());
        for (const Input &input : program.inputs) {
            Labels labels = 0;
            for (int i = 0; i < kRank; ++i)
                if (const Base b = dim(input.dims, i)) labels |= whole(bit(b));
            inputs.push_back(number(drawn(labels, 1000 + inputs.size())));
        }
    }

    Labels tile(Bases bases) const { return labels_of(in_tile_, bases); }
    Labels whole(Bases bases) const { return tile(bases) | labels_of(looped_, bases); }
    Labels looped(Base base) const { return looped_[base]; }
    Bases bases(Labels labels) const {
        Bases made = 0;
        for (std::size_t i = 0; i < labels_.size(); ++i)
            if (labels >> i & 1) made |= bit(labels_[i]);
        return made;
    }
    Labels in_tiles() const { return tile(~Bases{1}); }

    Labels labels(Id x) const { return values_[x].labels; }
    std::size_t size() const { return values_.size(); }
    std::size_t bytes() const { return bytes_ + known_.bytes() + values_.capacity() * sizeof(Value); }

    // What the program computes.
    Id target() {
        std::vector<Array> made;
        for (const Node &node : program_.nodes) {
            const auto at = [&](int place) -> const Array & { return made[static_cast<std::size_t>(place)]; };
            switch (node.term) {
            case Term::input: made.push_back(array(inputs[static_cast<std::size_t>(node.a)])); break;
            case Term::apply: {
                Array x;
                if (!apply(node.b, at(node.a), x)) throw std::invalid_argument("an exponential of another");
                made.push_back(std::move(x));
                break;
            }
            case Term::add:
            case Term::sub:
            case Term::mul:
            case Term::div: made.push_back(join(node.term, at(node.a), at(node.b))); break;
            case Term::matmul: made.push_back(sum(join(Term::mul, at(node.a), at(node.b)), whole(node.over))); break;
            case Term::sum: made.push_back(sum(at(node.a), whole(node.over))); break;
            case Term::permute:
            case Term::rename: throw std::invalid_argument("a program of another kind");
            }
        }
        return number(made[static_cast<std::size_t>(program_.outputs[0])]);
    }

    Array array(Id x) const {
        const Value &value = values_[x];
        const std::size_t size = extent(value.labels) * kLayers * (value.inside ? 2 : 1);
        return {value.labels, value.inside, std::vector<std::uint32_t>(value.data, value.data + size)};
    }

    // The place of a value among those that are known; the same for the same numbers.
    Id number(const Array &x) {
        std::uint64_t key = mix(x.labels);
        for (std::size_t i = 0; i < extent(x.labels) * kLayers; ++i) key = (std::rotl(key, 23) ^ x.data[i]) * 0x9e3779b97f4a7c15u;
        key = mix(key) >> 1;
        bool fresh = false;
        Id &place = known_.at(key, fresh);
        if (fresh) {
            place = static_cast<Id>(values_.size());
            values_.push_back({x.labels, x.inside, store(x.data)});
        }
        return place;
    }

    bool apply(int function, const Array &x, Array &made) const {
        const Function &f = program_.functions[static_cast<std::size_t>(function)];
        switch (f.fn) {
        case Fn::exp: return exponential(x, made);
        case Fn::square: made = join(Term::mul, x, x); break;
        case Fn::sqrt: made = powers(x, kRoot); break;
        case Fn::rsqrt: made = inverse(powers(x, kRoot)); break;
        case Fn::reciprocal: made = inverse(x); break;
        case Fn::scale: made = join(Term::mul, x, constant(f.id)); break;
        case Fn::shift: made = join(Term::add, x, constant(f.id)); break;
        case Fn::rms_norm: {
            Array mean = sum(join(Term::mul, x, x), whole(bit(f.base)));
            if (f.id >= 0) mean = join(Term::mul, mean, constant(f.id));
            if (f.eps >= 0) mean = join(Term::add, mean, constant(f.eps));
            made = join(Term::div, x, powers(mean, kRoot));
            break;
        }
        case Fn::opaque: made = scattered(x, static_cast<std::uint64_t>(f.id)); break;
        }
        return true;
    }

    Array join(Term term, const Array &x, const Array &y) const {
        if (term == Term::div) return join(Term::mul, x, inverse(y));
        Array made = shaped(x.labels | y.labels, x.inside && y.inside);
        const std::size_t n = extent(made.labels), nx = extent(x.labels), ny = extent(y.labels);
        const std::vector<std::uint16_t> &in_x = places(made.labels, x.labels), &in_y = places(made.labels, y.labels);
        for (int half = 0; half < (made.inside ? 2 : 1); ++half)
            for (int layer = 0; layer < kLayers; ++layer) {
                const auto block = static_cast<std::size_t>(half * kLayers + layer);
                const std::uint64_t modulus = half == kOutside ? kP : kQ;
                const bool negates = term == Term::sub && kNegates[static_cast<std::size_t>(plane_of(layer))];
                for (std::size_t i = 0; i < n; ++i) {
                    const std::uint64_t a = x.data[block * nx + in_x[i]], b = y.data[block * ny + in_y[i]];
                    std::uint64_t c;
                    if (term == Term::mul) {
                        c = half == kOutside ? a * b % kP : a * b % kQ;
                    } else {
                        c = a + (negates ? modulus - b : b);
                        if (c >= modulus) c -= modulus;
                    }
                    made.data[block * n + i] = static_cast<std::uint32_t>(c);
                }
            }
        return made;
    }

    Array sum(const Array &x, Labels over) const {
        Array made = shaped(x.labels & ~over, x.inside);
        const std::size_t n = extent(x.labels), left = extent(made.labels);
        const std::vector<std::uint16_t> &place = places(x.labels, made.labels);
        for (std::size_t block = 0; block < x.data.size() / n; ++block)
            for (std::size_t i = 0; i < n; ++i) {
                const std::uint64_t modulus = block < kLayers ? kP : kQ;
                std::uint32_t &at = made.data[block * left + place[i]];
                const std::uint64_t c = std::uint64_t{at} + x.data[block * n + i];
                at = static_cast<std::uint32_t>(c >= modulus ? c - modulus : c);
            }
        return made;
    }

    // Whether the first residue of a join, then summed over some labels, is that of another value.
    bool starts_alike(Term term, Id a, Id b, Labels over, Id wanted) const {
        const Value &x = values_[a], &y = values_[b];
        const Labels all = x.labels | y.labels;
        const std::vector<std::uint16_t> &in_x = places(all, x.labels), &in_y = places(all, y.labels);
        // The inverse's first plane is made of the last.
        const std::size_t last = extent(y.labels) * (kLayers - kRounds);
        std::uint64_t total = 0;
        for (const std::uint16_t i : firsts(all, over)) {
            const std::uint64_t u = x.data[in_x[i]], v = y.data[in_y[i]];
            switch (term) {
            case Term::add: total += u + v; break;
            case Term::sub: total += u + kP - v; break;
            case Term::div: total += u * power<kOutside>(y.data[last + in_y[i]], kInverse[kPlanes - 1][kOutside]) % kP; break;
            default: total += u * v % kP; break;
            }
        }
        return total % kP == values_[wanted].data[0];
    }

    bool starts_alike(Id a, Labels over, Id wanted) const {
        std::uint64_t total = 0;
        for (const std::uint16_t i : firsts(values_[a].labels, over)) total += values_[a].data[i];
        return total % kP == values_[wanted].data[0];
    }

    std::vector<Id> inputs;

  private:
    struct Value {
        Labels labels = 0;
        bool inside = false;
        const std::uint32_t *data = nullptr;
    };

    static Labels labels_of(const std::array<Labels, kMaxBases + 1> &part, Bases bases) {
        Labels made = 0;
        for (std::size_t b = 1; b < part.size(); ++b)
            if (bases >> b & 1) made |= part[b];
        return made;
    }

    // Pairwise different, so that a number of terms never tells one sum for another.
    static std::size_t extent(Labels labels) {
        std::size_t made = 1;
        for (; labels; labels &= labels - 1) made *= static_cast<std::size_t>(std::countr_zero(labels)) + 2;
        return made;
    }

    std::size_t pair(Labels a, Labels b) const { return std::size_t{a} << labels_.size() | b; }

    // Of each element over all labels: where an array over some of them has it.
    const std::vector<std::uint16_t> &places(Labels all, Labels some) const {
        std::vector<std::uint16_t> &made = places_[pair(all, some)];
        if (!made.empty()) return made;
        made.resize(extent(all));
        for (std::size_t i = 0; i < made.size(); ++i) {
            std::size_t rest = i, step = 1, place = 0;
            for (Labels left = all; left; left &= left - 1) {
                const Labels label = left & (~left + 1);
                const std::size_t length = extent(label);
                if (some & label) {
                    place += rest % length * step;
                    step *= length;
                }
                rest /= length;
            }
            made[i] = static_cast<std::uint16_t>(place);
        }
        return made;
    }

    // The elements that a sum over some labels puts first.
    const std::vector<std::uint16_t> &firsts(Labels all, Labels over) const {
        std::vector<std::uint16_t> &made = firsts_[pair(all, over)];
        if (!made.empty()) return made;
        const std::vector<std::uint16_t> &place = places(all, all & ~over);
        for (std::size_t i = 0; i < place.size(); ++i)
            if (place[i] == 0) made.push_back(static_cast<std::uint16_t>(i));
        return made;
    }

    static Array shaped(Labels labels, bool inside) {
        return {labels, inside, std::vector<std::uint32_t>(extent(labels) * kLayers * (inside ? 2 : 1))};
    }

    Array drawn(Labels labels, std::uint64_t name) const {
        Array made = shaped(labels, looks_inside_);
        const std::size_t half = extent(labels) * kLayers;
        for (std::size_t i = 0; i < made.data.size(); ++i)
            made.data[i] = static_cast<std::uint32_t>(1 + mix(name << 32 | i) % ((i < half ? kP : kQ) - 1));
        return made;
    }

    Array constant(int id) const { return drawn(0, static_cast<std::uint64_t>(id)); }

    Array inverse(const Array &x) const {
        const Array made = powers(x, kInverse);
        Array turned = made;
        const std::size_t plane = extent(x.labels) * kRounds, half = plane * kPlanes;
        for (std::size_t i = 0; i < made.data.size(); ++i) {
            const std::size_t start = i / half * half;
            turned.data[start + (i - start + plane) % half] = made.data[i];
        }
        return turned;
    }

    static Array powers(const Array &x, const std::array<std::array<std::uint64_t, 2>, kPlanes> &exponents) {
        Array made = x;
        const std::size_t n = extent(x.labels), half = n * kLayers;
        for (std::size_t i = 0; i < x.data.size(); ++i) {
            const bool inside = i >= half;
            const std::uint64_t exponent = exponents[i % half / (n * kRounds)][inside];
            made.data[i] = static_cast<std::uint32_t>(inside ? power<kInside>(x.data[i], exponent) : power<kOutside>(x.data[i], exponent));
        }
        return made;
    }

    // There may be one at most on any way.
    static bool exponential(const Array &x, Array &made) {
        if (!x.inside) return false;
        made = shaped(x.labels, false);
        // 9 is a square, and so of order Q.
        for (std::size_t i = 0; i < made.data.size(); ++i)
            made.data[i] = static_cast<std::uint32_t>(power<kOutside>(9, x.data[made.data.size() + i]));
        return true;
    }

    static Array scattered(const Array &x, std::uint64_t salt) {
        Array made = x;
        const std::size_t half = extent(x.labels) * kLayers;
        for (std::size_t i = 0; i < half; ++i) {
            const std::uint64_t hash = mix(x.data[i] ^ mix(salt + 77) << 31);
            made.data[i] = static_cast<std::uint32_t>(hash % kP);
            if (x.inside) made.data[half + i] = static_cast<std::uint32_t>(mix(hash) % kQ);
        }
        return made;
    }

    const std::uint32_t *store(const std::vector<std::uint32_t> &data) {
        constexpr std::size_t kChunk = 1 << 20;
        if (chunks_.empty() || chunk_used_ + data.size() > kChunk) {
            chunks_.push_back(std::make_unique<std::uint32_t[]>(kChunk));
            chunk_used_ = 0;
            bytes_ += kChunk * sizeof(std::uint32_t);
            if (data.size() > kChunk) throw std::invalid_argument("a program of too many dimensions");
        }
        std::uint32_t *to = chunks_.back().get() + chunk_used_;
        std::ranges::copy(data, to);
        chunk_used_ += data.size();
        return to;
    }

    const Program &program_;
    bool looks_inside_ = false;
    std::vector<Base> labels_;
    std::array<Labels, kMaxBases + 1> in_tile_{}, looped_{};
    FlatMap<Id> known_;
    std::vector<Value> values_;
    std::vector<std::unique_ptr<std::uint32_t[]>> chunks_;
    std::size_t chunk_used_ = 0, bytes_ = 0;
    mutable std::vector<std::vector<std::uint16_t>> places_, firsts_; // by two sets of labels
};

// Fingerprints that were seen.
class Seen {
  public:
    bool insert(std::uint64_t key) {
        key += key == 0;
        if ((size_ + 1) * 3 > slots_.size() * 2) {
            std::vector<std::uint64_t> old(slots_.size() * 2);
            old.swap(slots_);
            for (const std::uint64_t other : old)
                if (other) slots_[place(other)] = other;
        }
        const std::size_t at = place(key);
        if (slots_[at]) return false;
        slots_[at] = key;
        return ++size_;
    }
    std::size_t bytes() const { return slots_.size() * sizeof(std::uint64_t); }

  private:
    std::size_t place(std::uint64_t key) const {
        std::size_t at = key & (slots_.size() - 1);
        while (slots_[at] && slots_[at] != key) at = (at + 1) & (slots_.size() - 1);
        return at;
    }
    std::vector<std::uint64_t> slots_ = std::vector<std::uint64_t>(1 << 12);
    std::size_t size_ = 0;
};

enum class Kind : std::uint8_t { apply, sum, gather, join };

struct Step {
    Kind kind{};
    Term term{}; // of a join
    std::uint8_t function = 0;
    Bases over = 0;
    Id a = 0, b = 0, made = 0;
};

// All block graphs in one loop.
class Blocks {
  public:
    Blocks(const Program &program, Values &values, Base loop, const BruteLimits &limits, Brute &found)
        : program_(program), values_(values), loop_(loop), looped_(loop ? values.looped(loop) : 0), limits_(limits),
          found_(found), target_(values.target()), wanted_(values.labels(target_)), tile_(values.in_tiles()) {
        std::vector<Labels> made;
        std::set<Bases> sets;
        for (Base b = 1; b <= program.bases(); ++b) sets.insert(bit(b));
        for (const Node &node : program.nodes) {
            const auto at = [&](int place) { return made[static_cast<std::size_t>(place)]; };
            if (node.term == Term::matmul || node.term == Term::sum) sets.insert(node.over);
            subtracts_ |= node.term == Term::sub;
            const bool two = node.term >= Term::add && node.term <= Term::matmul;
            if (node.term == Term::input) made.push_back(values.labels(values.inputs[static_cast<std::size_t>(node.a)]));
            else made.push_back((two ? at(node.a) | at(node.b) : at(node.a)) & ~values.whole(node.over));
            rank_ = std::max(rank_, std::popcount(made.back() & tile_));
        }
        sets_.assign(sets.begin(), sets.end());
        for (const Function &function : program.functions) squares_ |= function.fn == Fn::square;
    }

    void run(std::chrono::steady_clock::time_point began) {
        began_ = began;
        for (const Id input : values_.inputs) push(input, values_.labels(input) & looped_ ? kVarying : kInvariant, 0);
        const int left = limits_.operators - count_;
        if (left > 0) grow(0, (1u << count_) - 1, left);
    }

    std::size_t bytes() const {
        return seen_.bytes() + alone_.bytes() + together_.bytes() + steps_.capacity() * sizeof(Step);
    }

  private:
    // Two add up to `kAfter` only where one is of an iteration and the other after the loop, or both are one of these.
    enum : std::uint8_t { kVarying = 0, kAfter = 1, kInvariant = 4 };
    static constexpr int kMost = 24;

    struct Run {
        std::uint32_t first = 0, count = 0;
    };

    void push(Id number, std::uint8_t phase, std::uint32_t step) {
        numbers_[count_] = number;
        phases_[count_] = phase;
        makers_[count_++] = step;
    }

    // Offers a step: one whose shape a tensor can have or, where none may follow, one that makes the target.
    template <typename Compute> void offer(Labels labels, const Step &step, Compute compute) {
        if (std::popcount(labels & tile_) > rank_) return;
        Array made;
        if (!compute(made)) return;
        steps_.push_back(step);
        steps_.back().made = values_.number(made);
    }

    template <typename Take> void each_alone(Id a, Take take) {
        const Labels x = values_.labels(a);
        for (std::size_t f = 0; f < program_.functions.size(); ++f) {
            const Function &function = program_.functions[f];
            const Labels needed = function.fn == Fn::rms_norm ? values_.whole(bit(function.base)) : 0;
            if (needed & ~(x & ~looped_)) continue;
            take(x, Labels{0}, Step{Kind::apply, {}, static_cast<std::uint8_t>(f), 0, a, 0, 0});
        }
        const Labels varies = x & looped_;
        for (std::size_t i = 0; i <= sets_.size(); ++i) {
            const Bases over = i ? sets_[i - 1] : 0;
            if (over & ~values_.bases(x & ~looped_)) continue;
            const Labels inner = x & ~looped_ & values_.whole(over);
            if (inner) take(x & ~inner, inner, Step{Kind::sum, {}, 0, over, a, 0, 0});
            if (varies) take(x & ~(inner | varies), inner | varies, Step{Kind::gather, {}, 0, over, a, 0, 0});
        }
    }

    template <typename Take> void each_together(Id a, Id b, Take take) {
        const Labels x = values_.labels(a), y = values_.labels(b), all = x | y;
        const Bases in_x = values_.bases(x & ~looped_), in_y = values_.bases(y & ~looped_), shared = in_x & in_y;
        if ((x & ~looped_ & values_.whole(shared)) != (y & ~looped_ & values_.whole(shared))) return;
        const auto joined = [&](Term term, Id first, Id second) {
            take(all, Labels{0}, Step{Kind::join, term, 0, 0, first, second, 0});
        };
        joined(Term::add, a, b);
        if (a != b || !squares_) joined(Term::mul, a, b);
        for (const bool turned : {false, true}) {
            if (turned && a == b) continue;
            joined(Term::div, turned ? b : a, turned ? a : b);
            if (subtracts_) joined(Term::sub, turned ? b : a, turned ? a : b);
        }
        for (const Bases over : sets_) {
            // A matrix product has a batch only beside rows or columns.
            if (over & ~shared || (shared != over && in_x == in_y)) continue;
            const Labels inner = all & ~looped_ & values_.whole(over);
            take(all & ~inner, inner, Step{Kind::join, Term::matmul, 0, over, a, b, 0});
        }
    }

    bool compute(const Step &step, Labels over, Array &made) {
        const Array x = values_.array(step.a);
        if (step.kind == Kind::apply) return values_.apply(step.function, x, made);
        if (step.kind != Kind::join) {
            made = values_.sum(x, over);
            return true;
        }
        const bool product = step.term == Term::matmul;
        made = values_.join(product ? Term::mul : step.term, x, values_.array(step.b));
        if (product) made = values_.sum(made, over);
        return true;
    }

    // Steps of a value, or of two, each computed once.
    template <typename Each> Run known(FlatMap<Run> &memo, std::uint64_t key, Each each) {
        bool fresh = false;
        Run &run = memo.at(key, fresh);
        if (fresh) {
            run.first = static_cast<std::uint32_t>(steps_.size());
            each([&](Labels labels, Labels over, const Step &step) {
                offer(labels, step, [&](Array &made) { return compute(step, over, made); });
            });
            run.count = static_cast<std::uint32_t>(steps_.size()) - run.first;
        }
        return run;
    }

    bool out_of_limits() {
        if (found_.states % 1024) return !found_.complete;
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began_;
        found_.bytes = std::max(found_.bytes, bytes() + values_.bytes());
        if (took.count() > limits_.seconds || found_.bytes > limits_.bytes) found_.complete = false;
        return !found_.complete;
    }

    // `state`: a fingerprint of the set of steps. `unused`: a bit for each value that nothing has used yet. `left`: steps
    // that may follow.
    void grow(std::uint64_t state, std::uint32_t unused, int left) {
        ++found_.states;
        --left;
        // So many of what is unused this step must use, if those that follow are to use the rest.
        const int due = std::popcount(unused) - left;
        if (due > 2 || out_of_limits()) return;
        const bool last = left == 0;
        const int count = count_;
        const auto idle = [&](int place) { return (unused >> place & 1) != 0; };
        for (int i = 0; i < count && due < 2; ++i) {
            if (due == 1 && !idle(i)) continue;
            const Id x = numbers_[i];
            const std::uint8_t phase = phases_[i];
            const std::uint32_t still = unused & ~(1u << i);
            const auto after = [&](Kind kind) { return kind == Kind::gather ? std::uint8_t{kAfter} : phase; };
            if (last) {
                each_alone(x, [&](Labels labels, Labels over, const Step &step) {
                    if (labels != wanted_ || (step.kind == Kind::gather && phase != kVarying)) return;
                    if (step.kind != Kind::apply && !values_.starts_alike(x, over, target_)) return;
                    conclude(step, over, after(step.kind), still);
                });
                continue;
            }
            const Run run = known(alone_, x, [&](auto take) { each_alone(x, take); });
            for (std::uint32_t s = run.first; s < run.first + run.count; ++s)
                if (steps_[s].kind != Kind::gather || phase == kVarying) take(state, s, after(steps_[s].kind), still, left);
        }
        for (int i = 0; i < count; ++i) {
            if (due == 2 && !idle(i)) continue;
            for (int j = i; j < count; ++j) {
                if ((due == 2 && (i == j || !idle(j))) || (due == 1 && !idle(i) && !idle(j))) continue;
                const std::uint8_t early = phases_[i], late = phases_[j];
                if (early + late == kVarying + kAfter && early != late) continue;
                const std::uint8_t phase = early == kInvariant ? late : early;
                const Id x = std::min(numbers_[i], numbers_[j]), y = std::max(numbers_[i], numbers_[j]);
                const std::uint32_t still = unused & ~(1u << i | 1u << j);
                if (last) {
                    each_together(x, y, [&](Labels labels, Labels over, const Step &step) {
                        if (labels == wanted_ && values_.starts_alike(step.term, step.a, step.b, over, target_))
                            conclude(step, over, phase, still);
                    });
                    continue;
                }
                const Run run = known(together_, std::uint64_t{x} << 32 | y, [&](auto take) { each_together(x, y, take); });
                for (std::uint32_t s = run.first; s < run.first + run.count; ++s) take(state, s, phase, still, left);
            }
        }
    }

    void take(std::uint64_t state, std::uint32_t step, std::uint8_t phase, std::uint32_t still, int left) {
        const Id made = steps_[step].made;
        if (made == target_) {
            keep(steps_[step], phase, still);
            return;
        }
        for (int i = 0; i < count_; ++i)
            if (numbers_[i] == made) return;
        const std::uint64_t grown = state + mix(step);
        if (!seen_.insert(grown)) return;
        const std::uint32_t unused = still | 1u << count_;
        push(made, phase, step);
        grow(grown, unused, left);
        --count_;
    }

    // The last step, which makes the target or nothing.
    void conclude(const Step &step, Labels over, std::uint8_t phase, std::uint32_t still) {
        Array made;
        if (compute(step, over, made) && values_.number(made) == target_) keep(step, phase, still);
    }

    // Nothing needs the target but its store, and everything else must have been used for it.
    void keep(const Step &step, std::uint8_t phase, std::uint32_t still) {
        if (still == 0 && phase == (loop_ ? kAfter : kInvariant)) found_.graphs.insert(written_graph(loop_, written(step)));
    }

    std::string written(const Step &step) const {
        switch (step.kind) {
        case Kind::apply: return written_apply(step.function, written(step.a));
        case Kind::sum:
        case Kind::gather: return written_sum(step.kind == Kind::gather, step.over, written(step.a));
        case Kind::join: break;
        }
        return written_pair(step.term, step.over, written(step.a), written(step.b));
    }

    std::string written(Id number) const {
        int place = 0;
        while (numbers_[place] != number) ++place;
        return place < static_cast<int>(values_.inputs.size()) ? written_input(place) : written(steps_[makers_[place]]);
    }

    const Program &program_;
    Values &values_;
    Base loop_;
    Labels looped_;
    const BruteLimits &limits_;
    Brute &found_;
    Id target_;
    Labels wanted_, tile_;
    std::vector<Bases> sets_; // that one operator may sum over
    bool subtracts_ = false, squares_ = false;
    int rank_ = 0;
    std::chrono::steady_clock::time_point began_;
    std::vector<Step> steps_;
    FlatMap<Run> alone_, together_;
    Seen seen_;

    // The graph in the making.
    std::array<Id, kMost> numbers_{};
    std::array<std::uint8_t, kMost> phases_{};
    std::array<std::uint32_t, kMost> makers_{};
    int count_ = 0;
};

} // namespace

Brute brute(const Program &program, const BruteLimits &limits) {
    const auto began = std::chrono::steady_clock::now();
    Brute found;
    Values values(program);
    Bases loads = 0;
    for (const Id input : values.inputs) loads |= values.bases(values.labels(input));
    for (int loop = 0; loop <= program.bases(); ++loop) {
        const Base base = static_cast<Base>(loop);
        if (loop && (!values.looped(base) || !(loads & bit(base)))) continue;
        Blocks(program, values, base, limits, found).run(began);
    }
    found.values = values.size();
    return found;
}

} // namespace tilesmith::test
