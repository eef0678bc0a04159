import { type BackendKeyTable, STRING } from '../config/backend-keys.ts';
import { WeftError } from '../errors.ts';
import { Secret } from '../secret.ts';
import { type BackendKind, type CloudCredentials, NO_PEER_STATE } from './backend.ts';
import { attrsOf, hostState, requireAddress, requireIpv4 } from './shared.ts';

const KEYS = { AccessKeyID: STRING, AccessKeySecret: STRING } as const satisfies BackendKeyTable;

interface TencentVpcConfig {
  /** `undefined` where one of the two is missing. */
  readonly credentials: CloudCredentials | undefined;
}

/** No encapsulation: each host has a route to its subnet in the route table of the VPC, on Tencent Cloud (flannel's tencent-vpc). */
export const tencentVpc: BackendKind<TencentVpcConfig, CloudCredentials, typeof KEYS> = {
  type: 'tencent-vpc',
  families: ['ipv4'],
  keys: KEYS,
  ignoresPeers: true,
  isCarriedByOthers: true,
  isUnnamed: true,
  owns: () => [],
  parse: (values) => ({ credentials: credentialsOf(values.AccessKeyID, values.AccessKeySecret) }),
  async identify({ credentials }, _network, _past, host) {
    const given = credentials ?? credentialsOf(host.variable('ACCESS_KEY_ID'), host.variable('ACCESS_KEY_SECRET'));
    if (given !== undefined) return given;
    throw new WeftError('WEFT_CONFIG_INVALID', 'ACCESS_KEY_ID and ACCESS_KEY_SECRET must be provided!', {
      hint: 'Give both to the agent as variables, or AccessKeyID and AccessKeySecret in the Backend of net-conf.json.',
    });
  },
  identityIn: () => ({ id: new Secret(''), secret: new Secret('') }),
  open(_config, credentials, network, external) {
    const { families, family, whole } = requireIpv4(network, tencentVpc);
    const gateway = requireAddress(external.publicAddresses.ipv4, family, external, tencentVpc.type);
    return {
      // The type is empty, as flannel writes it.
      attrs: attrsOf('', external, families, () => undefined),
      usesPeerData: false,
      mtuBytes: external.mtuBytes,
      host: ({ subnets }) => ({
        kernel: hostState({}, network),
        ...(subnets.ipv4 === undefined
          ? {}
          : { cloudRoute: { subnet: subnets.ipv4, gateway, network: whole, credentials } }),
      }),
      peer: () => ({ kernel: NO_PEER_STATE }),
    };
  },
};

function credentialsOf(id: string | undefined, secret: string | undefined): CloudCredentials | undefined {
  return id && secret ? { id: new Secret(id), secret: new Secret(secret) } : undefined;
}
