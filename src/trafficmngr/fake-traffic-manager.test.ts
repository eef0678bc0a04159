import { trafficManagerContract } from '../../test/contract/traffic-manager.ts';
import { FakeRuleStore, FakeTrafficManager } from '../../test/fakes/fake-traffic-manager.ts';

trafficManagerContract('fake', async () => {
  const store = new FakeRuleStore();
  return {
    manager: () => new FakeTrafficManager(store),
    deleteRule: async ({ family, chain }, index) => void store.chain(family, chain)?.splice(index, 1),
    duplicateRule: async ({ family, chain }, index) => {
      const rules = store.chain(family, chain);
      rules?.push(...rules.slice(index, index + 1));
    },
    moveToEnd: async ({ family, chain }, index) => {
      const rules = store.chain(family, chain);
      rules?.push(...rules.splice(index, 1));
    },
    insertForeignRule: async ({ family, chain }) =>
      void store.chain(family, chain)?.unshift({ key: 'foreign', text: 'foreign', named: undefined }),
    wipe: async () => store.chains.clear(),
    async [Symbol.asyncDispose]() {},
  };
});
