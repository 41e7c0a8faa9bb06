#include "ledger.hpp"

#include <algorithm>
#include <numeric>
#include <set>
#include <span>
#include <unordered_map>

namespace tilesmith {
namespace {

std::uint64_t key_of(const Kernels &kernels, bool last) {
    std::uint64_t hash = 0;
    for (const Tensor input : kernels.inputs) hash += Memo::hash_of(input);
    return Memo::key(hash, last);
}

} // namespace

void write(Writer &writer, const Kernels &kernels) {
    writer.put_all(kernels.inputs);
    writer.put_all(kernels.steps);
    writer.put<std::uint64_t>(kernels.signatures.size());
    for (const Signature &signature : kernels.signatures) {
        writer.put(signature.outputs);
        writer.put_all(signature.implementations);
    }
}

Kernels read_kernels(Reader &reader) {
    Kernels kernels;
    kernels.inputs = reader.get_all<Tensor>();
    kernels.steps = reader.get_all<Step>();
    for (auto more = reader.get<std::uint64_t>(); more > 0; --more) {
        Signature &signature = kernels.signatures.emplace_back();
        signature.outputs = reader.get<std::array<Tensor, kMaxStores>>();
        signature.implementations = reader.get_all<Implementation>();
    }
    return kernels;
}

void write(Writer &writer, const std::vector<const Memo::Entry *> &entries) {
    writer.put<std::uint64_t>(entries.size());
    for (const Memo::Entry *entry : entries) {
        writer.put(entry->key());
        write(writer, entry->kernels());
    }
}

void read_entries(Reader &reader, Memo &memo) {
    for (auto left = reader.get<std::uint64_t>(); left > 0; --left) {
        const auto key = reader.get<std::uint64_t>();
        Kernels kernels = read_kernels(reader);
        bool fresh = false;
        Memo::Entry &entry = memo.at(key, fresh);
        if (fresh || (entry.elsewhere() && !entry.ready())) memo.fill(entry, std::move(kernels), true);
    }
}

// Programs follow one another as the search meets them, most of them with the kernels of the one before but for the last:
// only what differs is written.
void write(Writer &writer, const Chain &chain) {
    writer.put(chain.id);
    writer.put_all(chain.lengths);
    writer.put_all(chain.places);
    std::unordered_map<const Kernels *, std::uint32_t> numbers;
    std::vector<std::uint64_t> named;
    std::vector<std::uint8_t> kept;
    std::vector<std::uint32_t> choices;
    std::span<const Choice> before, left = chain.choices;
    for (const std::uint8_t length : chain.lengths) {
        if (length == 0) continue;
        const auto plan = left.first(length);
        left = left.subspan(length);
        std::size_t k = 0;
        // The last kernel is another search's, of targets alone.
        while (k + 1 < std::min(before.size(), plan.size()) && before[k] == plan[k]) ++k;
        kept.push_back(static_cast<std::uint8_t>(k));
        for (; k < plan.size(); ++k) {
            const auto [number, fresh] = numbers.try_emplace(plan[k].kernels, static_cast<std::uint32_t>(named.size()));
            if (fresh) named.push_back(key_of(*plan[k].kernels, k + 1 == plan.size()));
            choices.push_back(number->second);
            choices.push_back(plan[k].signature);
        }
        before = plan;
    }
    writer.put_all(kept);
    writer.put_all(named);
    writer.put_all(choices);
}

void write(Writer &writer, const Item &item, Memo &memo) {
    std::vector<const Memo::Entry *> entries;
    std::set<std::uint64_t> keys;
    for (const Prefix &node : item.nodes)
        for (int k = 0; k < node.depth; ++k)
            if (const auto key = key_of(*node.path[static_cast<std::size_t>(k)].kernels, false); keys.insert(key).second)
                entries.push_back(&memo.entry(key));
    write(writer, entries);
    writer.put(item.errand.key);
    writer.put_all(item.errand.inputs);
    writer.put<std::uint64_t>(item.nodes.size());
    for (const Prefix &node : item.nodes) {
        writer.put(node.state);
        writer.put(node.depth);
        for (int k = 0; k < node.depth; ++k) {
            const Choice &choice = node.path[static_cast<std::size_t>(k)];
            writer.put(key_of(*choice.kernels, false));
            writer.put(choice.signature);
        }
    }
    writer.put<std::uint64_t>(item.from);
    writer.put<std::uint64_t>(item.to);
    writer.put(item.first);
    writer.put(item.last);
}

Item read_item(Reader &reader, Memo &memo) {
    read_entries(reader, memo);
    Item item;
    item.errand.key = reader.get<std::uint64_t>();
    item.errand.inputs = reader.get_all<Tensor>();
    for (auto left = reader.get<std::uint64_t>(); left > 0; --left) {
        Prefix &node = item.nodes.emplace_back();
        node.state = reader.get<State>();
        node.depth = reader.get<int>();
        if (node.depth < 0 || node.depth >= kMostKernels) throw std::invalid_argument("a message has too many kernels");
        for (int k = 0; k < node.depth; ++k) {
            const auto key = reader.get<std::uint64_t>();
            node.path[static_cast<std::size_t>(k)] = {&memo.entry(key).kernels(), reader.get<std::uint32_t>()};
        }
    }
    if (item.nodes.empty() && !item.is_errand()) throw std::invalid_argument("a message has no work");
    item.from = reader.get<std::uint64_t>();
    item.to = reader.get<std::uint64_t>();
    item.first = reader.get<std::uint32_t>();
    item.last = reader.get<std::uint32_t>();
    return item;
}

Chain read_chain(Reader &reader, Memo &memo) {
    Chain chain;
    chain.id = reader.get<std::uint64_t>();
    chain.lengths = reader.get_all<std::uint8_t>();
    chain.places = reader.get_all<std::uint64_t>();
    const auto kept = reader.get_all<std::uint8_t>();
    std::vector<const Kernels *> named;
    for (const std::uint64_t key : reader.get_all<std::uint64_t>()) named.push_back(&memo.entry(key).kernels());
    const auto choices = reader.get_all<std::uint32_t>();
    chain.choices.reserve(std::accumulate(chain.lengths.begin(), chain.lengths.end(), std::size_t{0}));
    std::size_t program = 0, at = 0, length_before = 0;
    for (const std::uint8_t length : chain.lengths) {
        if (length == 0) continue;
        const std::size_t same = kept.at(program++), before = chain.choices.size() - length_before;
        if (same > std::min<std::size_t>(length, length_before)) throw std::invalid_argument("a message has too many kernels");
        for (std::size_t k = 0; k < same; ++k) chain.choices.push_back(chain.choices[before + k]);
        for (std::size_t k = same; k < length; ++k, at += 2) chain.choices.push_back({named.at(choices.at(at)), choices.at(at + 1)});
        length_before = length;
    }
    return chain;
}

template <typename Visit> bool Ledger::each(std::uint64_t id, bool whole, const Visit &visit) const {
    const auto found = chains_.find(id);
    if (found == chains_.end()) return !whole;
    const Chain &chain = found->second;
    std::size_t at = 0, place = 0;
    for (const std::uint8_t length : chain.lengths) {
        if (length == 0) {
            if (!each(chain.places[place++], whole, visit)) return false;
            continue;
        }
        if (!visit(Plan{chain.choices.data() + at, length})) return false;
        at += length;
    }
    return true;
}

bool Ledger::has(std::uint64_t graphs) const {
    std::uint64_t there = 0;
    const auto count = [&](Plan plan) { return (there += Book::ways(plan)) < graphs; };
    for (std::uint64_t id = 0; each(id, true, count); ++id) {}
    return there >= graphs;
}

Plans Ledger::plans(std::uint64_t most, Order order, std::uint64_t &graphs) const {
    std::set<std::uint64_t> named;
    for (const auto &[id, chain] : chains_) named.insert(chain.places.begin(), chain.places.end());
    const auto full = [&] { return most && graphs >= most; };
    Plans all;
    const auto take = [&](Plan plan) {
        all.add(plan);
        graphs += Book::ways(plan);
        return !(order == Order::dfs && full());
    };
    for (const auto &[id, chain] : chains_)
        if (!named.contains(id) && !each(id, false, take)) break;
    if (!most || order == Order::dfs) return all;
    graphs = 0;
    Plans fewest;
    all.each([&](Plan plan) {
        if (full()) return;
        graphs += Book::ways(plan);
        fewest.add(plan);
    });
    return fewest;
}

} // namespace tilesmith
